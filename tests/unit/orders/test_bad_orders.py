"""Whatever a client sends: an answer that says what is wrong, nothing stored, never a 500."""

import json
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders.models import Order
from outbox.models import OutboxMessage
from tests import seed, strategies
from tests.problems import assert_problem

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stock")]


def post(client: Client, body: str | bytes, content_type: str = "application/json") -> Any:
    return client.post("/orders/", data=body, content_type=content_type)


def assert_nothing_stored() -> None:
    assert Order.objects.count() == 0
    assert OutboxMessage.objects.count() == 0


def with_amount(literal: str) -> str:
    return json.dumps(seed.order(amount="AMOUNT")).replace('"AMOUNT"', literal)


def with_quantity(literal: str) -> str:
    return json.dumps(seed.order(items=[seed.item(quantity="QUANTITY")])).replace(
        '"QUANTITY"', literal
    )


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in seed.ORDER.items() if name != field}


def item_without(field: str) -> dict[str, Any]:
    return {name: value for name, value in seed.item().items() if name != field}


NO_QUANTITY = ["0", "-1", "1.5", "1.0", "2e0", "true", '"2"', "null", "[]", "{}", "1000001"]
NO_AMOUNT = ["0", "0.00", "-0.01", "-1", "1.005", "1.500", "1e3", "1E2", "0.001", '"99.99"', "true"]
TOO_MUCH = ["10000000000", "1" + "0" * 25, "1" + "0" * 30, "9" * 5000]
OUT_OF_RANGE = ["1e" + "9" * 21, "-1e" + "9" * 21, "0." + "0" * 5000, "1e-" + "9" * 21]


@pytest.mark.parametrize("literal", [*NO_QUANTITY, *TOO_MUCH, *OUT_OF_RANGE])
def test_a_quantity_is_a_whole_positive_number(client: Client, literal: str) -> None:
    assert_problem(post(client, with_quantity(literal)), 422, "items[0].quantity")
    assert_nothing_stored()


@pytest.mark.parametrize("literal", [*NO_AMOUNT, "null", "[]", *TOO_MUCH, *OUT_OF_RANGE])
def test_an_amount_is_plain_money(client: Client, literal: str) -> None:
    assert_problem(post(client, with_amount(literal)), 422, "amount")
    assert_nothing_stored()


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("place", [with_amount, with_quantity])
def test_a_number_that_json_has_not_is_refused(client: Client, literal: str, place: Any) -> None:
    problem = assert_problem(post(client, place(literal)), 400)
    assert literal in problem["detail"]
    assert_nothing_stored()


BAD_IDS = ["", " ", "a/b", "a\0b", "\ud800", "é", "a\n", "-a", "a" * 65, 1, True, [], {}]


@pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
@pytest.mark.parametrize("field", ["order_id", "user_id", "items[0].id"])
def test_an_id_is_short_and_plain(client: Client, field: str, bad: Any) -> None:
    changes = {"items": [seed.item(id=bad)]} if field == "items[0].id" else {field: bad}
    body = seed.order(**changes)

    assert_problem(post(client, json.dumps(body)), 422, field)
    assert_nothing_stored()


@pytest.mark.parametrize("bad", ["", "a\0b", "\udfff", "\x1b[2J", "a" * 201, 5, None], ids=ascii)
def test_a_name_is_short_and_printable(client: Client, bad: Any) -> None:
    body = seed.order(items=[seed.item(name=bad)])

    assert_problem(post(client, json.dumps(body)), 422, "items[0].name")
    assert_nothing_stored()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (without("user_id"), "user_id"),
        (without("items"), "items"),
        (without("amount"), "amount"),
        (seed.order(user_id=None), "user_id"),
        (seed.order(items=[seed.item(id=None)]), "items[0].id"),
        (seed.order(items=[item_without("id")]), "items[0].id"),
        (seed.order(items=[item_without("name")]), "items[0].name"),
        (seed.order(items=[item_without("quantity")]), "items[0].quantity"),
        (seed.order(items=[]), "items"),
        (seed.order(items={}), "items"),
        (seed.order(items="ITEM-1"), "items"),
        (seed.order(items=[[]]), "items[0]"),
        (seed.order(items=[seed.item(), seed.item()]), "items"),
        (seed.order(items=[seed.item(id=f"ITEM-{n}") for n in range(101)]), "items"),
        (seed.order(items=[seed.item(), seed.item(id="NONE")]), "items[1].id"),
        (seed.order(status="fulfilled"), "status"),
        (seed.order(items=[seed.item(price=1)]), "items[0].price"),
        (seed.order(**{"\ud800": 1}), "body"),
        (seed.order(**{"\0": 1}), "\0"),
        ([], "body"),
        ("ORD-001", "body"),
        (None, "body"),
        (1, "body"),
        (True, "body"),
        ({}, "amount"),
    ],
    ids=ascii,
)
def test_an_order_of_another_shape_is_refused(client: Client, body: Any, field: str) -> None:
    assert_problem(post(client, json.dumps(body)), 422, field)
    assert_nothing_stored()


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{'a': 1}",
        b"ORD-001",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b" ",
        b"{}{}",
        b"[1,]",
        b"\0",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_not_json_is_refused(client: Client, body: bytes) -> None:
    assert_problem(post(client, body), 400)
    assert_nothing_stored()


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        (('"amount": 99.99', '"amount": 1, "amount": 9000'), "amount"),
        (('"quantity": 2', '"quantity": 2, "quantity": 2'), "quantity"),
        (('"amount"', '"a\\u006dount": 1, "amount"'), "amount"),
        (('"amount"', '"x": [{"\\u001b[1m": {}, "\\u001b[1m": 1}], "amount"'), r"\x1b[1m"),
    ],
)
def test_a_name_stands_once_in_an_object(
    client: Client, changed: tuple[str, str], name: str
) -> None:
    body = json.dumps(seed.ORDER)
    assert changed[0] in body

    problem = assert_problem(post(client, body.replace(*changed)), 400)
    assert name in problem["detail"].replace("\\\\", "\\")
    assert_nothing_stored()


def test_a_deep_body_that_can_be_read_is_refused_too(client: Client) -> None:
    body = json.dumps(seed.ORDER)[:-1] + ', "deep": ' + "[" * 400 + "]" * 400 + "}"

    problem = assert_problem(post(client, body), 400)
    assert problem["detail"] == "the body is nested too deeply: more than 64 levels"
    assert_nothing_stored()


def test_an_empty_body_is_refused(client: Client) -> None:
    assert_problem(post(client, b""), 422, "body")


@pytest.mark.parametrize("size", [1_048_577, 2 * 1_048_576])
def test_a_body_over_a_mebibyte_is_refused(client: Client, size: int) -> None:
    body = json.dumps(seed.ORDER).encode().ljust(size)

    problem = assert_problem(post(client, body), 413)
    assert "1048576" in problem["detail"]
    assert_nothing_stored()


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_of_another_type_is_refused(client: Client, content_type: str) -> None:
    problem = assert_problem(post(client, json.dumps(seed.ORDER), content_type), 415)
    assert "application/json" in problem["detail"]
    assert_nothing_stored()


def test_parameters_of_the_content_type_are_accepted(client: Client) -> None:
    response = post(client, json.dumps(seed.ORDER), "Application/JSON; charset=utf-8")
    assert response.status_code == 202


def test_a_chunked_body_is_refused(client: Client) -> None:
    response = client.post(
        "/orders/", content_type="application/json", headers={"transfer-encoding": "chunked"}
    )
    assert_problem(response, 411)


def test_a_problem_names_a_few_faults_of_many(client: Client) -> None:
    body = seed.order(**{f"field_{n}": n for n in range(20_000)})

    problem = assert_problem(post(client, json.dumps(body)), 422, "field_0")
    assert len(problem["errors"]) == 20


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["ORD-001", "ITEM-1", 99.99, "\ud800", "\0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strategies.text(max_size=8), inner),
    max_leaves=8,
)
items = st.fixed_dictionaries(
    {}, optional={name: json_values | st.just(value) for name, value in seed.item().items()}
)
orders = st.fixed_dictionaries(
    {},
    optional={name: json_values | st.just(value) for name, value in seed.ORDER.items()}
    | {"items": json_values | st.lists(json_values | items, max_size=3), "more": json_values},
)
any_times = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@any_times
@given(body=json_values | orders)
def test_no_json_is_an_error_of_ours(client: Client, body: Any) -> None:
    response = post(client, json.dumps(body))

    assert response.status_code < 500, response.content
    assert response.status_code < 300 or response["Content-Type"] == "application/problem+json"


@any_times
@given(body=st.binary(max_size=200))
def test_no_bytes_are_an_error_of_ours(client: Client, body: bytes) -> None:
    assert 400 <= post(client, body).status_code < 500
    assert_nothing_stored()
