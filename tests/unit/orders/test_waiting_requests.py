"""`Prefer: wait`, where something is in the way of waiting; redirects that would lose an order."""

import json
from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection
from django.test import Client
from pytest_django import Settings

from orders import api, waiting
from orders.models import Order
from tests.seed import ORDER

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stock")]


@pytest.fixture
def one_place(settings: Settings) -> Iterator[None]:
    settings.MAX_WAITING_REQUESTS = 1
    waiting._places.cache_clear()
    yield
    waiting._places.cache_clear()


def post(client: Client, path: str = "/orders/", **headers: str):  # type: ignore[no-untyped-def]
    return client.post(path, json.dumps(ORDER), "application/json", headers=headers)


def test_a_stored_order_is_never_answered_as_if_it_were_not(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("the server went away")

    monkeypatch.setattr(api, "_wait_until_ended", away)

    answer = post(client, Prefer="wait=5")

    assert answer.status_code == 202
    assert answer.json()["order_id"] == Order.objects.get().order_id


def test_where_all_places_are_taken_it_is_answered_at_once(client: Client, one_place: None) -> None:
    with waiting.waiting_room() as has_place:
        assert has_place
        answer = post(client, Prefer="wait=30")

    assert (answer.status_code, answer["Preference-Applied"]) == (202, "wait=0")


def test_a_place_is_free_again_afterwards(one_place: None) -> None:
    for _ in range(2):
        with waiting.waiting_room() as has_place:
            assert has_place


def test_a_post_without_the_slash_is_not_redirected(client: Client) -> None:
    """A client that follows would send a GET, and take the list of orders for its answer."""
    answer = post(client, "/orders")

    assert answer.status_code == 404
    assert "slash" in answer.json()["detail"]
    assert not Order.objects.exists()


def test_a_get_without_the_slash_is(client: Client) -> None:
    assert client.get("/orders")["Location"] == "/orders/"


def test_head_is_answered_wherever_get_is(client: Client) -> None:
    answer = client.head("/health/")

    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.on_postgresql
@pytest.mark.django_db(transaction=True)
def test_waiting_keeps_no_connection(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool has 20: as many that wait would leave none for new orders."""
    kept: list[bool] = []

    def sleep(_: float) -> None:
        kept.append(connection.connection is not None)
        Order.objects.update(status="fulfilled")

    monkeypatch.setattr("orders.api.time.sleep", sleep)

    assert post(client, Prefer="wait=5").status_code == 201
    assert kept == [False]
