import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections, transaction

from orders.errors import OrderConflict, UnknownProducts
from orders.models import Order, Product
from orders.sample_stock import SAMPLE_QUANTITY, load_sample_stock
from orders.services import Item, Placed, place_order, receive_stock
from outbox.models import OutboxMessage
from tests.unit.waiting import TIMEOUT

WIDGETS = [Item(product_id="ITEM-1", name="Widget", quantity=2)]


def place(
    *, order_id: str | None = "ORD-001", user_id: str = "USER-123", amount: str = "99.90"
) -> Placed:
    return place_order(order_id=order_id, user_id=user_id, items=WIDGETS, amount=Decimal(amount))


@pytest.mark.django_db
def test_the_command_says_all_that_the_saga_needs(stock: None) -> None:
    order = place().order

    message = OutboxMessage.objects.get()
    assert json.loads(bytes(message.payload)) == {
        "order_id": "ORD-001",
        "user_id": "USER-123",
        "items": [{"id": "ITEM-1", "name": "Widget", "quantity": 2}],
        "amount": "99.90",
    }
    assert message.key == order.order_id


@pytest.mark.django_db
def test_a_saga_id_depends_on_the_order_id_alone(stock: None) -> None:
    first = place().order.saga_id
    OutboxMessage.objects.all().delete()
    order = Order.objects.get()
    order.delete()

    assert place(amount="1.00").order.saga_id == first
    assert place(order_id=None).order.saga_id != first


@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_request_leaves_nothing(stock: None) -> None:
    with transaction.atomic():
        place()
        assert OutboxMessage.objects.exists()
        transaction.set_rollback(True)

    assert not Order.objects.exists()
    assert not OutboxMessage.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_order_that_cannot_be_enqueued_is_not_stored(
    stock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("orders.services.enqueue", fail)
    with pytest.raises(ZeroDivisionError):
        place()

    assert not Order.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_unknown_product_leaves_nothing(stock: None) -> None:
    items = [*WIDGETS, Item(product_id="NONE", name="Nothing", quantity=1)]
    with pytest.raises(UnknownProducts) as caught:
        place_order(order_id=None, user_id="U", items=items, amount=Decimal(1))

    assert caught.value.product_ids == ("NONE",)
    assert not Order.objects.exists()
    assert not OutboxMessage.objects.exists()


def together(*calls: Callable[[], Any]) -> list[Any]:
    """The calls' results or errors, each made in a thread of its own, all at once."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(TIMEOUT)
        try:
            return call()
        except OrderConflict as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


@pytest.mark.django_db(transaction=True)
def test_the_same_order_placed_at_once_is_placed_once(stock: None) -> None:
    placed = together(*[place] * 8)

    assert sorted(result.is_new for result in placed) == [False] * 7 + [True]
    assert len({result.order.pk for result in placed}) == 1
    assert OutboxMessage.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_orders_with_one_id_at_once_one_is_refused(stock: None) -> None:
    results = together(lambda: place(amount="1.00"), lambda: place(amount="2.00"))

    assert [type(result) for result in results].count(OrderConflict) == 1
    assert Order.objects.count() == OutboxMessage.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_many_orders_at_once_are_all_placed(stock: None) -> None:
    placed = together(*[lambda: place(order_id=None)] * 20)

    assert all(result.is_new for result in placed)
    assert Order.objects.count() == OutboxMessage.objects.count() == 20


@pytest.mark.django_db
def test_received_stock_adds_up() -> None:
    receive_stock(product_id="P", name="Thing", quantity=2)
    product = receive_stock(product_id="P", name="Other name", quantity=3)

    assert (product.name, product.received, product.on_hand) == ("Thing", 5, 5)


@pytest.mark.django_db
def test_sample_stock_is_loaded_once() -> None:
    assert load_sample_stock() == 3
    assert load_sample_stock() == 0
    assert Product.objects.get(product_id="ITEM-1").on_hand == SAMPLE_QUANTITY
