"""Orders while consumers are replaced: old and new ones do the steps of one saga by turns."""

from collections.abc import Set
from decimal import Decimal
from itertools import combinations

import pytest
from django.db import transaction

from orders.models import (
    Order,
    OrderStatus,
    Payment,
    PaymentStatus,
    SimulatedCharge,
)
from orders.payments.simulated import SimulatedGateway
from orders.services import Item, place_order
from sagas.definition.registry import saga_type
from sagas.journal.codec import encode
from sagas.models import Saga
from tests.unit.orders.released_orders import bring_back
from tests.unit.orders.test_order_saga import Lossy, _book, assert_audit_is_clean, running, stock
from tests.unit.waiting import until

__all__ = ["_book"]

pytestmark = pytest.mark.django_db(transaction=True)

PRICE = Decimal("99.99")


class Exact(SimulatedGateway):
    """Refuses a refund of another amount, as its protocol says."""

    def refund(self, *, key: str, charge_key: str, reference: str, amount: Decimal) -> None:
        charge = SimulatedCharge.objects.filter(key=charge_key).first()
        assert charge is None or charge.amount == amount
        super().refund(key=key, charge_key=charge_key, reference=reference, amount=amount)


class LossyAndExact(Exact, Lossy):
    pass


def some_of(*names: str) -> list[frozenset[str]]:
    """Which of them an old worker does: none, each, any of them together, all."""
    return [frozenset(old) for count in range(len(names) + 1) for old in combinations(names, count)]


def told(names: Set[str]) -> str:
    return "old " + " ".join(sorted(names)) if names else "all new"


@pytest.mark.parametrize(
    "old", some_of("on_place", "reserve_inventory", "charge_payment"), ids=told
)
def test_an_order_is_fulfilled(old: Set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bring_back(old, monkeypatch)
    with running(Exact(), monkeypatch) as shop:
        order = shop.place("ORD-1")
    assert (order.status, order.reason) == (OrderStatus.FULFILLED, "")
    assert SimulatedCharge.objects.get().amount == Payment.objects.get().amount == PRICE
    assert_audit_is_clean()


@pytest.mark.parametrize(
    "old",
    some_of("on_place", "reserve_inventory", "charge_payment", "refund_payment"),
    ids=told,
)
def test_a_charge_in_doubt_is_refunded(old: Set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bring_back(old, monkeypatch)
    with running(LossyAndExact(), monkeypatch) as shop:
        order = shop.place("ORD-1")
    assert (order.status, order.reason) == (
        OrderStatus.REJECTED,
        "PaymentUnavailable: the answer was lost",
    )
    assert Payment.objects.get().status == PaymentStatus.REFUNDED
    assert stock() == (10, 0, 0)
    assert_audit_is_clean()


def test_an_amount_that_an_old_worker_believed_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has read a forged command, and reserved."""
    bring_back({"reserve_inventory"}, monkeypatch)
    found = saga_type("order")
    assert found is not None
    with running(Exact(), monkeypatch):
        with transaction.atomic():  # before a worker claims it
            items = [Item("BOOK", "A book", 2)]
            order = place_order(order_id="F", user_id="U", items=items, amount=PRICE).order
            Saga.objects.create(
                id=order.saga_id,
                name="order",
                key="F",
                definition_hash=found.definition_hash,
                input=encode({"order_id": "F", "amount": Decimal("0.01")}),
            )
        until(lambda: not Order.objects.unfinished().exists())
    assert Order.objects.get().status == OrderStatus.FULFILLED
    assert SimulatedCharge.objects.get().amount == Payment.objects.get().amount == PRICE
