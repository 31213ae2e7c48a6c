"""Orders from end to end in one process: placed, relayed over memory://, run by a saga service."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from threading import Event

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError
from django.utils import timezone

from brokers import Record, Subscription
from brokers.memory import MemoryBroker
from orders import fulfilment
from orders.audit import audit_orders
from orders.cancelling import cancel_order
from orders.errors import CancelTooLate, PaymentDeclined, PaymentUnavailable
from orders.messages import EVENTS
from orders.models import (
    Order,
    OrderStatus,
    Payment,
    PaymentStatus,
    Product,
    Reservation,
    Shipment,
    SimulatedCharge,
)
from orders.payments import PaymentGateway, gateway_from_url
from orders.payments.simulated import SimulatedGateway
from orders.services import Item, place_order, receive_stock
from outbox.models import OutboxMessage
from relay.assembly import assemble_relay
from saga_runtime.backoff import Backoff
from saga_runtime.correlation import Correlation, correlated
from sagas.models import Saga, SagaStep
from sagas.run.timing import Timing
from sagas.worker.service import SagaService
from tests.unit.waiting import TIMEOUT, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Shop:
    """What runs, and how a test looks at it."""

    broker: MemoryBroker
    events: Subscription

    def place(
        self, order_id: str, *, amount: str = "99.99", quantity: int = 2, product: str = "BOOK"
    ) -> Order:
        """Place an order and wait until it has ended or needs a person."""
        with correlated(Correlation("trace-1", TRACEPARENT)):
            placed = place_order(
                order_id=order_id,
                user_id="U-1",
                items=[Item(product, "A book", quantity)],
                amount=Decimal(amount),
            )
        until(lambda: not Order.objects.filter(order_id=order_id).unfinished().exists())
        return Order.objects.get(pk=placed.order.pk)

    def published(self) -> list[Record]:
        """Every event, once the outbox is empty."""
        records: list[Record] = []

        def taken() -> bool:
            new = self.events.receive(timeout=0.01, limit=1000)
            self.events.commit(new)
            records.extend(new)
            return not OutboxMessage.objects.exists()

        until(taken)
        return records


@contextmanager
def running(gateway: PaymentGateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr("orders.sagas.gateway", lambda: gateway)
    broker = MemoryBroker()
    events = broker.subscribe([EVENTS], group="audit")
    timing = Timing(retry=Backoff(first=0.001, longest=0.02))
    # As in one process of `manage.py up`: the relay stops before the consumer that commits.
    with ExitStack() as stack:
        service = SagaService.from_settings(broker, concurrency=4, timing=timing)
        stack.enter_context(in_thread(service.run))
        stack.enter_context(in_thread(assemble_relay(broker, source="/tests").run))
        yield (shop := Shop(broker, events))
        shop.published()  # a relay that stops waits for those who have not yet taken all


@pytest.fixture(autouse=True)
def _book() -> None:
    receive_stock(product_id="BOOK", name="A book", quantity=10)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    with running(SimulatedGateway(), monkeypatch) as shop:
        yield shop


class Lossy(SimulatedGateway):
    """Its answers to charges are lost, each time; what it does, it does. A refund must be of the
    amount that was charged."""

    def charge(self, *, key: str, reference: str, amount: Decimal) -> str:
        super().charge(key=key, reference=reference, amount=amount)
        raise PaymentUnavailable("the answer was lost")

    def refund(self, *, key: str, charge_key: str, reference: str, amount: Decimal) -> None:
        charge = SimulatedCharge.objects.filter(key=charge_key).first()
        assert charge is None or charge.amount == amount
        super().refund(key=key, charge_key=charge_key, reference=reference, amount=amount)


def stock() -> tuple[int, int, int]:
    book = Product.objects.get(product_id="BOOK")
    return book.on_hand, book.reserved, book.shipped


def ledger() -> list[tuple[str, str]]:
    return list(SimulatedCharge.objects.values_list("reference", "status"))


def journal_of(order: Order) -> dict[str, str]:
    steps = SagaStep.objects.filter(saga_id=order.saga_id)
    return {f"{step.step}:{step.kind}": step.status for step in steps}


def assert_audit_is_clean() -> None:
    audit = audit_orders(now=timezone.now(), max_age=timedelta(hours=1))
    assert audit.contradictions == []


def test_an_order_is_fulfilled(shop: Shop) -> None:
    order = shop.place("ORD-1")
    assert (order.status, order.reason) == (OrderStatus.FULFILLED, "")
    assert stock() == (8, 0, 2)
    payment = Payment.objects.get()
    assert (payment.order_id, payment.amount, payment.status) == (
        order.pk,
        Decimal("99.99"),
        PaymentStatus.CHARGED,
    )
    assert ledger() == [("ORD-1", "charged")]
    assert Shipment.objects.get().tracking == "TRACK-ORD-1"
    assert Reservation.objects.get().status == "shipped"
    assert Saga.objects.get().status == "completed"
    assert_audit_is_clean()


def test_the_world_is_told_once(shop: Shop) -> None:
    order = shop.place("ORD-1")
    (event,) = shop.published()
    headers = dict(event.headers)
    assert event.key == b"ORD-1"
    assert headers["ce_type"] == b"order.fulfilled"
    assert headers["x-correlation-id"] == b"trace-1"
    assert headers["traceparent"] == TRACEPARENT.encode()
    assert json.loads(event.value or b"") == {
        "order_id": "ORD-1",
        "user_id": "U-1",
        "amount": "99.99",
        "status": "fulfilled",
        "reason": "",
        "saga_id": str(order.saga_id),
        "tracking": "TRACK-ORD-1",
    }


def test_many_orders(shop: Shop) -> None:
    for number in range(12):
        place_order(
            order_id=f"ORD-{number}",
            user_id="U-1",
            items=[Item("BOOK", "A book", 1)],
            amount=Decimal(1500 if number % 3 == 0 else 10),
        )
    until(lambda: not Order.objects.unfinished().exists())
    assert Order.objects.filter(status=OrderStatus.FULFILLED).count() == 8
    assert Order.objects.filter(status=OrderStatus.REJECTED).count() == 4
    assert stock() == (2, 0, 8)
    types = [dict(event.headers)["ce_type"] for event in shop.published()]
    assert sorted(types) == [b"order.fulfilled"] * 8 + [b"order.rejected"] * 4
    assert_audit_is_clean()


def test_a_declined_payment(shop: Shop) -> None:
    order = shop.place("ORD-1", amount="1500.00")
    assert order.status == OrderStatus.REJECTED
    assert "payment declined" in order.reason
    assert stock() == (10, 0, 0)
    assert ledger() == []
    assert not Payment.objects.exists()
    assert not Shipment.objects.exists()
    assert journal_of(order) == {
        "reserve_inventory:F": "done",
        "charge_payment:F": "failed",
        "reserve_inventory:C": "done",
    }
    (event,) = shop.published()
    assert dict(event.headers)["ce_type"] == b"order.rejected"
    assert json.loads(event.value or b"")["reason"] == order.reason
    assert_audit_is_clean()


def test_a_cancel_while_the_payment_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    charging, cancelled = Event(), Event()

    class Slow(SimulatedGateway):
        def charge(self, *, key: str, reference: str, amount: Decimal) -> str:
            charging.set()
            assert cancelled.wait(TIMEOUT)
            return super().charge(key=key, reference=reference, amount=amount)

    with running(Slow(), monkeypatch) as shop:
        place_order(
            order_id="ORD-1",
            user_id="U-1",
            items=[Item("BOOK", "A book", 2)],
            amount=Decimal("99.99"),
        )
        assert charging.wait(TIMEOUT)
        cancel_order(order_id="ORD-1", reason="found it cheaper")
        until(lambda: Saga.objects.exclude(cancel_reason="").exists())
        cancelled.set()
        until(lambda: Order.objects.filter(status=OrderStatus.CANCELLED).exists())
        order = Order.objects.get()
        assert order.reason == "found it cheaper"
        assert stock() == (10, 0, 0)
        assert ledger() == [("ORD-1", "refunded")]
        assert not Shipment.objects.exists()
        assert journal_of(order) == {
            "reserve_inventory:F": "done",
            "charge_payment:F": "done",
            "charge_payment:C": "done",
            "reserve_inventory:C": "done",
        }
        (event,) = shop.published()
        assert dict(event.headers)["ce_type"] == b"order.cancelled"
        assert json.loads(event.value or b"")["status"] == "cancelled"
        with pytest.raises(CancelTooLate):
            cancel_order(order_id="ORD-1", reason="again")
        assert_audit_is_clean()


def test_too_little_stock(shop: Shop) -> None:
    order = shop.place("ORD-1", quantity=11)
    assert order.status == OrderStatus.REJECTED
    assert "out of stock" in order.reason
    assert stock() == (10, 0, 0)
    assert ledger() == []
    assert journal_of(order) == {"reserve_inventory:F": "failed"}
    assert_audit_is_clean()


def test_several_products_are_reserved_together_or_not_at_all(shop: Shop) -> None:
    receive_stock(product_id="PEN", name="A pen", quantity=1)
    place_order(
        order_id="ORD-1",
        user_id="U-1",
        items=[Item("BOOK", "A book", 1), Item("PEN", "A pen", 2)],
        amount=Decimal(10),
    )
    until(lambda: not Order.objects.unfinished().exists())
    assert stock() == (10, 0, 0)
    assert not Reservation.objects.exists()
    assert_audit_is_clean()


def test_where_every_answer_is_lost_the_charge_is_refunded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running(Lossy(), monkeypatch) as shop:
        order = shop.place("ORD-1")
        assert order.status == OrderStatus.REJECTED
        assert "the answer was lost" in order.reason
        assert journal_of(order) == {
            "reserve_inventory:F": "done",
            "charge_payment:F": "unknown",
            "charge_payment:C": "done",
            "reserve_inventory:C": "done",
        }
        assert ledger() == [("ORD-1", "refunded")]
        assert stock() == (10, 0, 0)
        (event,) = shop.published()
        assert dict(event.headers)["ce_type"] == b"order.rejected"
    assert_audit_is_clean()


def test_a_lost_answer_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    chances = iter([1.0, 1.0, 0.0])  # no failure, no stall, a loss; from then on neither
    gateway = SimulatedGateway(lose=0.5, chance=lambda: next(chances, 1.0))
    with running(gateway, monkeypatch) as shop:
        order = shop.place("ORD-1")
    assert order.status == OrderStatus.FULFILLED
    assert ledger() == [("ORD-1", "charged")]
    assert SagaStep.objects.get(step="charge_payment").attempt == 2
    assert_audit_is_clean()


def test_a_refund_that_keeps_failing_needs_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(SimulatedGateway(lose=1), monkeypatch) as shop:
        order = shop.place("ORD-1")
        assert order.status == OrderStatus.ATTENTION
        assert "charge_payment" in order.reason
        assert Saga.objects.get().status == "parked"
        assert shop.published() == []
    # What it holds it holds until the person has decided.
    assert stock() == (8, 2, 0)


def test_a_charge_on_its_way_is_not_entered_after_its_refund() -> None:
    """A worker that was stopped between the gateway's answer and our books."""
    order = place_order(
        order_id="ORD-1",
        user_id="U-1",
        items=[Item("BOOK", "A book", 1)],
        amount=Decimal(10),
    ).order
    fulfilment.record_refund(order_id="ORD-1", charge_key="K")
    fulfilment.record_charge(order_id="ORD-1", charge=fulfilment.Charge("K", "TXN-1", order.amount))
    assert Payment.objects.get().status == PaymentStatus.REFUNDED
    fulfilment.record_refund(order_id="ORD-1", charge_key="K")
    assert Payment.objects.count() == 1


def test_releasing_and_refunding_what_never_was_changes_nothing() -> None:
    place_order(
        order_id="ORD-1",
        user_id="U-1",
        items=[Item("BOOK", "A book", 1)],
        amount=Decimal(10),
    )
    fulfilment.release_stock(order_id="ORD-1")
    assert stock() == (10, 0, 0)


class TestTheGateway:
    def charge(self, gateway: PaymentGateway, *, key: str = "K", amount: str = "10") -> str:
        return gateway.charge(key=key, reference="ORD-1", amount=Decimal(amount))

    def refund(self, gateway: PaymentGateway) -> None:
        gateway.refund(key="R", charge_key="K", reference="ORD-1", amount=Decimal(10))

    def test_the_same_key_has_one_effect(self) -> None:
        gateway = gateway_from_url("simulated://")
        assert self.charge(gateway) == self.charge(gateway)
        assert ledger() == [("ORD-1", "charged")]

    def test_at_once_too(self) -> None:
        gateway = gateway_from_url("simulated://")
        answers: list[str] = []
        barrier = threading.Barrier(4)

        def charge(_: threading.Event) -> None:
            barrier.wait()
            answers.append(self.charge(gateway))

        with ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(in_thread(charge))
        assert len(answers) == 4
        assert ledger() == [("ORD-1", "charged")]

    def test_another_key_for_one_order_is_no_second_charge(self) -> None:
        gateway = gateway_from_url("simulated://")
        self.charge(gateway)
        with pytest.raises(IntegrityError):
            self.charge(gateway, key="K-2")
        assert ledger() == [("ORD-1", "charged")]

    def test_a_refund_closes_the_key(self) -> None:
        gateway = gateway_from_url("simulated://")
        self.charge(gateway)
        self.refund(gateway)
        with pytest.raises(PaymentDeclined, match="closed"):
            self.charge(gateway)
        self.refund(gateway)
        assert ledger() == [("ORD-1", "refunded")]

    def test_a_refund_before_the_charge_closes_the_key(self) -> None:
        gateway = gateway_from_url("simulated://")
        self.refund(gateway)
        with pytest.raises(PaymentDeclined, match="closed"):
            self.charge(gateway)
        assert ledger() == [("ORD-1", "closed")]

    def test_the_limit(self) -> None:
        gateway = gateway_from_url("simulated://?limit=20")
        with pytest.raises(PaymentDeclined, match="20"):
            self.charge(gateway, amount="20.01")
        assert self.charge(gateway, amount="20")

    def test_a_lowered_limit_changes_no_answer_that_was_given(self) -> None:
        self.charge(gateway_from_url("simulated://"), amount="500")
        assert self.charge(gateway_from_url("simulated://?limit=1"), amount="500")

    def test_told_to_fail_it_has_no_effect(self) -> None:
        with pytest.raises(PaymentUnavailable, match="fail"):
            self.charge(gateway_from_url("simulated://?fail=1"))
        assert ledger() == []

    def test_told_to_lose_its_answers_it_has_its_effect(self) -> None:
        with pytest.raises(PaymentUnavailable, match="lose"):
            self.charge(gateway_from_url("simulated://?lose=1"))
        assert ledger() == [("ORD-1", "charged")]

    def test_told_to_delay_and_to_stall(self) -> None:
        slept: list[float] = []
        gateway = SimulatedGateway(delay=0.5, stall=1, sleep=slept.append)
        self.charge(gateway)
        assert slept == [0.5, 30.0]

    @pytest.mark.parametrize(
        ("url", "named"),
        [
            ("", "''"),
            ("paypal://", "'paypal'"),
            ("simulated://?limits=1", "limits"),
            ("simulated://?limit=much", "numbers"),
            ("simulated://?limit=", "numbers"),
            ("simulated://?limit=NaN", "finite"),
            ("simulated://?delay=-1", "negative"),
            ("simulated://?lose=1.5", "0 to 1"),
            ("simulated://[", "can be read"),
        ],
    )
    def test_a_url_that_names_none(self, url: str, named: str) -> None:
        with pytest.raises(ImproperlyConfigured, match=f"PAYMENT_GATEWAY_URL.*{named}"):
            gateway_from_url(url)
