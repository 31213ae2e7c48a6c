"""The audit finds each contradiction that can be made, and none where there is none."""

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.utils import timezone

from orders import fulfilment
from orders.audit import Audit, audit_orders
from orders.models import (
    LedgerStatus,
    Order,
    OrderStatus,
    Payment,
    PaymentStatus,
    Product,
    Reservation,
    ReservationStatus,
    Shipment,
    SimulatedCharge,
)
from orders.payments.simulated import SimulatedGateway
from orders.services import Item, place_order
from sagas.models import Saga, SagaStatus

# The audit begins a transaction of its own, for one view of all tables.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stock")]

AMOUNT = Decimal("99.99")


def audit() -> Audit:
    return audit_orders(now=timezone.now(), max_age=timedelta(hours=1))


def placed(order_id: str) -> Order:
    items = [Item("ITEM-1", "Widget", 2)]
    order = place_order(order_id=order_id, user_id="U", items=items, amount=AMOUNT).order
    Saga.objects.create(id=order.saga_id, name="order", key=order_id, input="{}")
    return order


def end(order: Order, status: OrderStatus, saga: SagaStatus) -> Order:
    Saga.objects.filter(id=order.saga_id).update(status=saga)
    Order.objects.filter(pk=order.pk).update(status=status)
    order.refresh_from_db()
    return order


def charged(order_id: str) -> Order:
    order = placed(order_id)
    fulfilment.reserve_stock(order_id=order_id)
    transaction_id = SimulatedGateway().charge(key=order_id, reference=order_id, amount=AMOUNT)
    fulfilment.record_charge(
        order_id=order_id, charge=fulfilment.Charge(order_id, transaction_id, AMOUNT)
    )
    return order


def fulfilled(order_id: str = "F-1") -> Order:
    order = charged(order_id)
    fulfilment.ship(order_id=order_id)
    return end(order, OrderStatus.FULFILLED, SagaStatus.COMPLETED)


def rejected(order_id: str = "R-1") -> Order:
    order = placed(order_id)
    fulfilment.reserve_stock(order_id=order_id)
    fulfilment.release_stock(order_id=order_id)
    return end(order, OrderStatus.REJECTED, SagaStatus.ROLLED_BACK)


def test_no_contradiction_in_orders_that_ended_as_they_should() -> None:
    fulfilled()
    rejected()
    placed("P-1")
    end(charged("A-1"), OrderStatus.ATTENTION, SagaStatus.PARKED)

    found = audit()

    assert found.contradictions == []
    assert found.orders == {"fulfilled": 1, "rejected": 1, "pending": 1, "attention": 1}


def _paid_too_little(_: Order) -> None:
    Payment.objects.update(amount=1)


def _charged_otherwise(_: Order) -> None:
    SimulatedCharge.objects.update(amount=1)


def _shipped_less(_: Order) -> None:
    Reservation.objects.update(quantity=1)
    Product.objects.filter(product_id="ITEM-1").update(received=999_999, shipped=1)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda _: Shipment.objects.all().delete(), "not shipped"),
        (lambda _: Payment.objects.all().delete(), "not paid"),
        (lambda _: Payment.objects.update(status=PaymentStatus.REFUNDED), "not paid"),
        (_paid_too_little, "paid 1"),
        (_charged_otherwise, "the gateway charged"),
        (lambda _: SimulatedCharge.objects.all().delete(), "the gateway charged []"),
        (_shipped_less, "what was shipped is not what was ordered"),
        (lambda _: Saga.objects.update(status=SagaStatus.ROLLED_BACK), "its saga is rolled_back"),
        (lambda _: Saga.objects.all().delete(), "its saga is missing"),
    ],
)
def test_a_fulfilled_order_that_is_not(spoil: Callable[[Order], None], what: str) -> None:
    spoil(fulfilled())

    assert [c.about for c in audit().contradictions if what in c.what] == ["F-1"]


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (
            lambda order: Shipment.objects.create(order=order, tracking="T"),
            "rejected, but shipped",
        ),
        (
            lambda order: Payment.objects.create(
                order=order, key="k", transaction_id="TXN-1", amount=AMOUNT
            ),
            "paid and not refunded",
        ),
        (
            lambda order: SimulatedGateway().charge(
                key="k", reference=order.order_id, amount=AMOUNT
            ),
            "charged by the gateway",
        ),
        (
            lambda _: Reservation.objects.update(status=ReservationStatus.ACTIVE),
            "1 reservation(s) are active",
        ),
    ],
)
def test_a_rejected_order_that_left_something(spoil: Callable[[Order], None], what: str) -> None:
    spoil(rejected())

    assert any(what in c.what for c in audit().contradictions if c.about == "R-1")


def test_stock_that_is_not_what_its_reservations_make_it() -> None:
    fulfilled()
    Product.objects.filter(product_id="ITEM-1").update(shipped=3, on_hand=999_997)

    found = {c.what.split(",")[0] for c in audit().contradictions if c.about == "ITEM-1"}

    assert found == {"shipped is 3", "on_hand is 999997"}


def test_a_charge_for_an_order_that_there_is_not() -> None:
    SimulatedGateway().charge(key="k", reference="NOBODY", amount=AMOUNT)
    SimulatedCharge.objects.create(key="c", reference="CLOSED", status=LedgerStatus.CLOSED)

    assert [c.about for c in audit().contradictions] == ["NOBODY"]


def test_an_unfinished_order_is_a_contradiction_once_it_is_old() -> None:
    placed("OLD")
    Order.objects.update(created_at=timezone.now() - timedelta(hours=2))

    assert [c.about for c in audit().contradictions] == ["OLD"]


class TestASagaThatIsGone:
    def forgotten(self, *, hours: int) -> None:
        """It ended so long ago, and what ended a day ago is cleaned up."""
        ended = timezone.now() - timedelta(hours=hours)
        Order.objects.update(created_at=ended, updated_at=ended)
        Saga.objects.update(created_at=ended, finished_at=ended)
        call_command("sagas", "clean", "--older-than", "1d")

    def test_is_none_once_its_order_has_ended_long_ago(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fulfilled()
        rejected()
        self.forgotten(hours=25)
        assert not Saga.objects.exists()

        assert audit().contradictions == []
        assert audit().cleaned == 2
        call_command("audit_orders")
        assert capsys.readouterr().out.splitlines()[-3:] == [
            "orders: 1 fulfilled, 1 rejected",
            "sagas: 2 of orders that ended long ago are deleted",
            "clean",
        ]

    def test_is_one_while_nobody_may_have_cleaned_it(self) -> None:
        fulfilled()
        self.forgotten(hours=23)
        assert (Saga.objects.count(), audit().cleaned) == (1, 0)
        Saga.objects.all().delete()

        assert [c.what for c in audit().contradictions] == ["fulfilled, but its saga is missing"]
        assert audit().cleaned == 0

    def test_hides_nothing_else(self) -> None:
        fulfilled()
        self.forgotten(hours=25)
        Shipment.objects.all().delete()

        assert [c.what for c in audit().contradictions] == ["fulfilled, but not shipped"]

    def test_is_one_of_an_order_that_has_not_ended(self) -> None:
        end(charged("A-1"), OrderStatus.ATTENTION, SagaStatus.PARKED)
        self.forgotten(hours=25)
        assert Saga.objects.exists()
        Saga.objects.all().delete()

        assert [c.what for c in audit().contradictions] == ["attention, but its saga is missing"]


class TestCommand:
    def test_a_clean_audit(self, capsys: pytest.CaptureFixture[str]) -> None:
        fulfilled()

        call_command("audit_orders")

        assert capsys.readouterr().out.splitlines() == ["orders: 1 fulfilled", "clean"]

    def test_contradictions_end_it_with_1(self, capsys: pytest.CaptureFixture[str]) -> None:
        fulfilled()
        Shipment.objects.all().delete()

        with pytest.raises(SystemExit, match="1"):
            call_command("audit_orders", "--json")

        report = json.loads(capsys.readouterr().out)
        assert report["orders"] == {"fulfilled": 1}
        assert report["cleaned"] == 0
        assert report["contradictions"] == [
            {"about": "F-1", "what": "fulfilled, but not shipped"},
        ]
