"""`POST /orders/{order_id}/cancel/`: the route, its command, and what becomes of the order."""

import json
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from orders.models import Order, OrderStatus, Shipment
from orders.services import receive_stock
from outbox.models import OutboxMessage

pytestmark = pytest.mark.django_db(transaction=True)

JSON = "application/json"


@pytest.fixture(autouse=True)
def _book() -> None:
    receive_stock(product_id="BOOK", name="A book", quantity=10)


@pytest.fixture
def placed(client: Client) -> Order:
    body = {
        "order_id": "ORD-1",
        "user_id": "ANN",
        "items": [{"id": "BOOK", "name": "A book", "quantity": 1}],
        "amount": 9.99,
    }
    assert client.post("/orders/", body, content_type=JSON).status_code == 202
    return Order.objects.get()


def cancel(client: Client, order_id: str = "ORD-1", body: Any = None) -> tuple[int, Any]:
    text = "" if body is None else json.dumps(body)
    response = client.post(f"/orders/{order_id}/cancel/", text, content_type=JSON)
    return response.status_code, response.json()


def commands() -> list[tuple[str, str, Any]]:
    return [
        (row.type, row.key, json.loads(bytes(row.payload)))
        for row in OutboxMessage.objects.order_by("id")
    ]


@pytest.mark.usefixtures("placed")
def test_a_command_follows_the_orders_own(client: Client) -> None:
    status, answer = cancel(client, body={"reason": "found it cheaper"})
    assert (status, answer["status"]) == (202, "pending")
    assert [(type_, key) for type_, key, _ in commands()] == [
        ("orders.place", "ORD-1"),
        ("orders.cancel", "ORD-1"),
    ]
    assert commands()[1][2] == {"order_id": "ORD-1", "reason": "found it cheaper"}


@pytest.mark.usefixtures("placed")
def test_no_body_is_needed(client: Client) -> None:
    assert cancel(client)[0] == 202
    assert client.generic("POST", "/orders/ORD-1/cancel/", content_type="").status_code == 202
    assert commands()[1][2] == {"order_id": "ORD-1", "reason": ""}


@pytest.mark.usefixtures("placed")
@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"reason": 1}, 422),
        ({"reason": "x" * 201}, 422),
        ({"reason": "a\0b"}, 422),
        ({"why": "x"}, 422),
        ([], 422),
        ("no", 422),
    ],
)
def test_a_body_that_is_no_reason(client: Client, body: Any, wanted: int) -> None:
    status, answer = cancel(client, body=body)
    assert (status, answer["status"]) == (wanted, wanted)
    assert len(commands()) == 1


@pytest.mark.usefixtures("placed")
def test_malformed_json(client: Client) -> None:
    response = client.post("/orders/ORD-1/cancel/", "{", content_type=JSON)
    assert response.status_code == 400
    assert len(commands()) == 1


@pytest.mark.parametrize("order_id", ["ORD-2", "a%00b", "%F0%9F%98%80"])
def test_an_order_that_there_is_not(client: Client, order_id: str) -> None:
    status, answer = cancel(client, order_id)
    assert status == 404
    assert answer["title"] == "Not Found"


@pytest.mark.parametrize(
    "ended", [OrderStatus.FULFILLED, OrderStatus.REJECTED, OrderStatus.CANCELLED]
)
def test_one_that_has_ended(client: Client, placed: Order, ended: OrderStatus) -> None:
    Order.objects.update(status=ended)
    status, answer = cancel(client)
    assert status == 409
    assert answer["detail"] == f"order ORD-1 is {ended} already"
    assert len(commands()) == 1


def test_one_that_is_shipped(client: Client, placed: Order) -> None:
    Shipment.objects.create(order=placed, tracking="T")
    status, answer = cancel(client)
    assert (status, answer["detail"]) == (409, "order ORD-1 is shipped already")
    assert len(commands()) == 1


@pytest.mark.usefixtures("placed")
def test_other_methods(client: Client) -> None:
    assert client.get("/orders/ORD-1/cancel/").status_code == 405


@pytest.mark.usefixtures("placed")
@pytest.mark.on_postgresql
def test_the_lock_lets_shipments_refer_to_the_order(client: Client) -> None:
    """FOR UPDATE would keep the pivot's own insert waiting."""
    with CaptureQueriesContext(connection) as queries:
        cancel(client)
    locks = [query["sql"] for query in queries if "FOR " in query["sql"]]
    assert len(locks) == 1
    assert "FOR NO KEY UPDATE" in locks[0]
