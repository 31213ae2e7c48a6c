import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from orders.models import Order, OrderStatus
from outbox.models import OutboxMessage
from sagas import saga_id
from sagas.models import Saga, SagaStatus, SagaStep, StepKind, StepStatus
from tests import seed
from tests.problems import assert_problem

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stock")]

Json = dict[str, Any]


def post(client: Client, body: Json, **headers: str) -> Any:
    return client.post(
        "/orders/",
        data=json.dumps(body),
        content_type="application/json",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def end(order_id: str, status: OrderStatus = OrderStatus.FULFILLED) -> None:
    Order.objects.filter(order_id=order_id).update(status=status)


def test_an_order_is_accepted(client: Client) -> None:
    response = post(client, seed.ORDER, X_Correlation_ID=seed.CORRELATION_ID)

    assert response.status_code == 202
    assert response["Location"] == "/orders/ORD-001/"
    body = response.json()
    assert body["order_id"] == "ORD-001"
    assert body["status"] == "pending"
    assert body["correlation_id"] == seed.CORRELATION_ID
    assert body["amount"] == "99.99"
    assert body["items"] == seed.ORDER["items"]
    assert body["saga_id"] == str(saga_id("order", "ORD-001"))


def test_an_order_and_its_command_are_stored_together(client: Client) -> None:
    post(client, seed.ORDER)

    message = OutboxMessage.objects.get()
    assert (message.topic, message.key, message.type) == (
        "orders.commands",
        "ORD-001",
        "orders.place",
    )
    assert Order.objects.get().order_id == "ORD-001"


def test_an_id_is_made_where_there_is_none(client: Client) -> None:
    first, second = (
        post(client, {k: v for k, v in seed.ORDER.items() if k != "order_id"}).json()["order_id"]
        for _ in range(2)
    )

    assert first != second
    assert client.get(f"/orders/{first}/").json()["order_id"] == first


def test_the_correlation_is_taken_echoed_and_stored(client: Client) -> None:
    response = post(
        client,
        seed.ORDER,
        X_Correlation_ID=seed.CORRELATION_ID,
        traceparent=seed.TRACEPARENT,
    )

    assert response["X-Correlation-ID"] == seed.CORRELATION_ID
    assert response["traceparent"] == seed.TRACEPARENT
    for row in (Order.objects.get(), OutboxMessage.objects.get()):
        assert row.correlation_id == seed.CORRELATION_ID
        assert row.traceparent == seed.TRACEPARENT


@pytest.mark.parametrize("sent", ["", "two words", "é", "x" * 129])
def test_a_correlation_that_cannot_be_taken_is_made(client: Client, sent: str) -> None:
    response = post(client, seed.ORDER, X_Correlation_ID=sent, traceparent=sent)

    assert re.fullmatch(r"[0-9a-f-]{36}", response["X-Correlation-ID"])
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", response["traceparent"])
    order = Order.objects.get()
    assert order.correlation_id == response["X-Correlation-ID"]
    assert order.traceparent == response["traceparent"]


def test_the_same_order_again_is_the_same_order(client: Client) -> None:
    first = post(client, seed.ORDER).json()
    again = post(client, seed.order(amount=99.990))

    assert again.status_code == 200
    assert again.json() == first
    assert again["Location"] == "/orders/ORD-001/"
    assert OutboxMessage.objects.count() == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 99.98},
        {"user_id": "USER-124"},
        {"items": [seed.item(quantity=3)]},
        {"items": [seed.item(name="Gadget")]},
        {"items": [seed.item(), seed.item(id="ITEM-2")]},
    ],
)
def test_the_same_id_with_other_content_is_a_conflict(client: Client, changes: Json) -> None:
    post(client, seed.ORDER)
    response = post(client, seed.order(**changes))

    assert response.status_code == 409
    assert response["Content-Type"] == "application/problem+json"
    assert "ORD-001" in response.json()["detail"]
    assert OutboxMessage.objects.count() == 1


def test_an_order_may_have_several_items_and_a_whole_amount(client: Client) -> None:
    response = post(client, seed.order(amount=1000, items=[seed.item(), seed.item(id="ITEM-2")]))

    assert response.status_code == 202
    assert response.json()["amount"] == "1000.00"
    assert [item["id"] for item in response.json()["items"]] == ["ITEM-1", "ITEM-2"]


@pytest.mark.parametrize("ending", [OrderStatus.FULFILLED, OrderStatus.REJECTED])
def test_waiting_answers_201_once_the_order_has_ended(
    client: Client, ending: OrderStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.api.time.sleep", lambda _: end("ORD-001", ending))
    response = post(client, seed.ORDER, Prefer="wait=10")

    assert response.status_code == 201
    assert response.json()["status"] == ending
    assert response["Preference-Applied"] == "wait=10"
    assert response["Location"] == "/orders/ORD-001/"


@pytest.mark.parametrize("seconds", ["0", "1"])
def test_waiting_answers_202_when_time_is_up(client: Client, seconds: str) -> None:
    response = post(client, seed.ORDER, Prefer=f"wait={seconds}")

    assert response.status_code == 202
    assert response.json()["status"] == "pending"


def test_waiting_ends_when_a_person_must_look(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.api.time.sleep", lambda _: end("ORD-001", OrderStatus.ATTENTION))
    response = post(client, seed.ORDER, Prefer="wait=10")

    assert response.status_code == 202
    assert response.json()["status"] == "attention"


def test_waiting_for_an_order_placed_before_answers_200(client: Client) -> None:
    post(client, seed.ORDER)
    end("ORD-001")
    response = post(client, seed.ORDER, Prefer="wait=10")

    assert response.status_code == 200
    assert response.json()["status"] == "fulfilled"


@pytest.mark.parametrize(
    ("header", "applied"),
    [
        ("wait=31", "wait=30"),
        ("wait=999999999", "wait=30"),
        ("respond-async, WAIT = 5; x=y", "wait=5"),
        ('wait="7"', "wait=7"),
        ("wait=-1", None),
        ("wait=soon", None),
        ("return=minimal", None),
        ('foo="a, wait=1"', None),
        ('foo="a, wait=1", wait=2', "wait=2"),
        ('foo="a \\", wait=1"', None),
        ('foo; bar="x, wait=1", wait=3', "wait=3"),
        ("wait=4, wait=5", "wait=4"),
        ("wait=soon, wait=5", None),
        (", ,wait=6", "wait=6"),
        ('foo="unclosed, wait=1', None),
        ("foo=(, wait=1", None),
        ("wait", None),
    ],
)
def test_the_wait_preference_is_read(
    client: Client, header: str, applied: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.api.time.sleep", lambda _: end("ORD-001"))
    response = post(client, seed.ORDER, Prefer=header)

    assert response.get("Preference-Applied") == applied
    assert response.status_code == (201 if applied else 202)


@pytest.fixture
def five(client: Client) -> list[str]:
    """Five orders, newest first: the even ones of USER-A, the others of USER-B."""
    for n in range(5):
        post(client, seed.order(order_id=f"ORD-{n}", user_id="USER-B" if n % 2 else "USER-A"))
    end("ORD-4")
    return [f"ORD-{n}" for n in (4, 3, 2, 1, 0)]


def listed(client: Client, **query: str | int) -> Json:
    response = client.get("/orders/", query)
    assert response.status_code == 200, response.content
    page: Json = response.json()
    page["ids"] = [order["order_id"] for order in page["orders"]]
    return page


def test_orders_are_listed_newest_first(client: Client, five: list[str]) -> None:
    page = listed(client)

    assert page["ids"] == five
    assert page["next"] is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "fulfilled"}, ["ORD-4"]),
        ({"status": "pending"}, ["ORD-3", "ORD-2", "ORD-1", "ORD-0"]),
        ({"user_id": "USER-B"}, ["ORD-3", "ORD-1"]),
        ({"user_id": "USER-A", "status": "pending"}, ["ORD-2", "ORD-0"]),
        ({"user_id": "USER-C"}, []),
    ],
)
def test_orders_are_filtered(
    client: Client, five: list[str], query: dict[str, str], expected: list[str]
) -> None:
    assert listed(client, **query)["ids"] == expected


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 200])
def test_the_pages_hold_every_order_once(client: Client, five: list[str], limit: int) -> None:
    page = listed(client, limit=limit)
    seen = page["ids"]
    while page["next"]:
        assert len(page["ids"]) == limit
        page = listed(client, limit=limit, cursor=page["next"])
        seen += page["ids"]

    assert seen == five


def test_orders_that_come_in_between_do_not_move_the_pages(client: Client, five: list[str]) -> None:
    first = listed(client, limit=2)
    post(client, seed.order(order_id="ORD-NEW"))

    assert listed(client, limit=2, cursor=first["next"])["ids"] == five[2:4]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("cursor=!!!", "cursor"),
        ("cursor=abc", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=" + "A" * 41, "cursor"),
        ("cursor=%C3%A9", "cursor"),
        ("cursor=4pyT", "cursor"),
        ("cursor=%ED%A0%80", "cursor"),
        ("user_id=%00", "user_id"),
        ("user_id=a%2Fb", "user_id"),
        ("user_id=", "user_id"),
        ("status=%00", "status"),
        ("status=done", "status"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=two", "limit"),
    ],
)
def test_a_bad_query_is_a_problem_that_names_the_parameter(
    client: Client, query: str, field: str
) -> None:
    assert_problem(client.get(f"/orders/?{query}"), 422, field)


def test_a_cursor_beyond_every_order_ends_the_list(client: Client, five: list[str]) -> None:
    assert listed(client, cursor="MA")["ids"] == []  # position 0
    assert listed(client, cursor="OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk")["ids"] == five


@pytest.mark.parametrize("path", ["ORD-404", "%00", "ORD%2F1", "%ED%A0%80", "a" * 5000, "%FF"])
@pytest.mark.parametrize("rest", ["", "diagram/"])
def test_an_order_that_is_not_there_is_not_found(client: Client, path: str, rest: str) -> None:
    assert_problem(client.get(f"/orders/{path}/{rest}"), 404)


def saga_of(order_id: str, status: SagaStatus, *steps: tuple[str, StepKind, StepStatus]) -> None:
    order = Order.objects.get(order_id=order_id)
    saga = Saga.objects.create(id=order.saga_id, name="order", key=order_id, status=status)
    for step, kind, outcome in steps:
        SagaStep.objects.create(saga=saga, step=step, kind=kind, status=outcome)


def no_saga() -> None:
    """The consumer has not seen the order yet."""


def waiting_saga() -> None:
    saga_of("ORD-001", SagaStatus.PENDING)


def running_saga() -> None:
    saga_of(
        "ORD-001",
        SagaStatus.RUNNING,
        ("reserve_inventory", StepKind.FORWARD, StepStatus.DONE),
        ("charge_payment", StepKind.FORWARD, StepStatus.STARTED),
    )


def completed_saga() -> None:
    steps = ("reserve_inventory", "charge_payment", "ship_order")
    saga_of(
        "ORD-001",
        SagaStatus.COMPLETED,
        *((step, StepKind.FORWARD, StepStatus.DONE) for step in steps),
    )


def rolled_back_saga() -> None:
    saga_of(
        "ORD-001",
        SagaStatus.ROLLED_BACK,
        ("reserve_inventory", StepKind.FORWARD, StepStatus.DONE),
        ("charge_payment", StepKind.FORWARD, StepStatus.FAILED),
        ("reserve_inventory", StepKind.COMPENSATION, StepStatus.DONE),
    )


def drawn(client: Client) -> str:
    body = client.get("/orders/ORD-001/diagram/").json()
    assert body.keys() == {"order_id", "diagram", "format"}
    assert (body["order_id"], body["format"]) == ("ORD-001", "mermaid")
    return str(body["diagram"])


@pytest.mark.parametrize("journal", [no_saga, waiting_saga])
def test_the_diagram_of_a_pending_order_has_no_path(
    client: Client, journal: Callable[[], None]
) -> None:
    post(client, seed.ORDER)
    journal()
    diagram = drawn(client)

    assert "pending" in diagram
    for step in ("reserve_inventory", "charge_payment", "ship_order"):
        assert f"{step}[{step}]:::todo" in diagram


def test_the_diagram_of_an_order_in_process_shows_where_it_is(client: Client) -> None:
    post(client, seed.ORDER)
    running_saga()
    diagram = drawn(client)

    assert "processing" in diagram
    assert "reserve_inventory[reserve_inventory]:::done" in diagram
    assert "charge_payment[charge_payment]:::current" in diagram
    assert "ship_order[ship_order]:::todo" in diagram


def test_the_diagrams_of_ended_orders_show_the_path_taken(client: Client) -> None:
    post(client, seed.ORDER)
    completed_saga()
    fulfilled = drawn(client)
    Saga.objects.all().delete()
    rolled_back_saga()
    rejected = drawn(client)

    assert "ship_order" in fulfilled
    assert fulfilled != rejected
    # The steps never reached are no part of the path.
    assert "ship_order" not in rejected


@pytest.mark.parametrize(
    ("accept", "is_text"),
    [
        ("text/vnd.mermaid", True),
        ("text/vnd.mermaid, application/json;q=0.5", True),
        ("application/json", False),
        ("*/*", False),
        ("text/html", False),
        (";;;", False),
    ],
)
def test_the_diagram_comes_as_text_to_those_who_ask(
    client: Client, accept: str, *, is_text: bool
) -> None:
    post(client, seed.ORDER)
    text = drawn(client)
    response = client.get("/orders/ORD-001/diagram/", headers={"accept": accept})

    assert response.status_code == 200
    if is_text:
        assert response["Content-Type"] == "text/vnd.mermaid; charset=utf-8"
        assert response.content.decode() == text
    else:
        assert response.json()["diagram"] == text
