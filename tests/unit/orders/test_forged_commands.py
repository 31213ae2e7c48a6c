"""Commands that we have not sent: the row decides, not the message, and orders go their way."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connection, transaction
from django.test import override_settings
from django.utils import timezone

from brokers import Message, Record
from orders import fulfilment
from orders.audit import audit_orders
from orders.cancelling import cancel_order
from orders.commands import placed_order, requested_cancel
from orders.errors import NotPaid
from orders.models import (
    Order,
    OrderStatus,
    Payment,
    PaymentStatus,
    Product,
    Shipment,
    SimulatedCharge,
)
from orders.payments.simulated import SimulatedGateway
from orders.services import Item, place_order, receive_stock
from saga_runtime.interventions import By
from sagas.definition.identity import step_key
from sagas.definition.registry import saga_type
from sagas.inbox import accepting
from sagas.journal.codec import decode, encode
from sagas.models import InboxMessage, RefusedCommand, Saga, SagaStatus, StepKind
from sagas.operations import interventions
from tests.unit.orders.test_order_saga import Shop, running
from tests.unit.waiting import TIMEOUT, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)

PRICE = Decimal("900.00")
GENUINE = {
    "order_id": "F",
    "user_id": "U-1",
    "items": [{"id": "BOOK", "name": "A book", "quantity": 2}],
    "amount": "900.00",
}
FORGED: dict[str, dict[str, Any]] = {
    "less money": {"amount": "0.01"},
    "more money": {"amount": "9000.00"},
    "the same as a number": {"amount": 900},
    "true": {"amount": True},
    "the same, written otherwise": {"amount": "9E+2"},
    "digits of a Decimal": {"amount": [0, [9, 0, 0], 0]},
    "not a number": {"amount": "NaN"},
    "no amount": {"amount": None},
    "one more item": {"items": [*GENUINE["items"], {"id": "PEN", "name": "Pen", "quantity": 1}]},
    "fewer items": {"items": []},
    "another quantity": {"items": [{"id": "BOOK", "name": "A book", "quantity": 1}]},
    "another user": {"user_id": "MALLORY"},
}


@pytest.fixture(autouse=True)
def _book() -> None:
    receive_stock(product_id="BOOK", name="A book", quantity=10)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    with running(SimulatedGateway(), monkeypatch) as shop:
        yield shop


class Forger:
    """Writes to the topic as anybody could who reaches the broker."""

    def __init__(self) -> None:
        self._sent = 0
        self._name = uuid4().hex

    def headers(self, type_: str) -> tuple[tuple[str, bytes], ...]:
        self._sent += 1
        texts = {
            "ce_specversion": "1.0",
            "ce_id": f"{self._name}-{self._sent}",
            "ce_type": type_,
            "ce_source": "/django-saga-outbox",
            "content-type": "application/json",
        }
        return tuple((name, text.encode()) for name, text in texts.items())

    def send(self, shop: Shop, payload: object, *, type_: str = "orders.place") -> None:
        value = json.dumps(payload).encode()
        message = Message("orders.commands", "F", value, self.headers(type_))
        shop.broker.publisher().publish(message, token=self._sent)

    def record(self, payload: object, *, type_: str = "orders.place") -> Record:
        headers = self.headers(type_)
        value = json.dumps(payload).encode()
        return Record("orders.commands", 0, self._sent, b"F", value, headers)


def place() -> Order:
    items = [Item("BOOK", "A book", 2)]
    return place_order(order_id="F", user_id="U-1", items=items, amount=PRICE).order


def refused(count: int) -> list[str]:
    until(lambda: RefusedCommand.objects.count() >= count)
    return list(RefusedCommand.objects.order_by("id").values_list("reason", flat=True))


def assert_fulfilled_as_ordered() -> None:
    until(lambda: not Order.objects.unfinished().exists())
    order = Order.objects.get()
    assert (order.status, order.reason, order.user_id) == (OrderStatus.FULFILLED, "", "U-1")
    assert SimulatedCharge.objects.get().amount == Payment.objects.get().amount == PRICE
    book = Product.objects.get(product_id="BOOK")
    assert (book.on_hand, book.reserved, book.shipped) == (8, 0, 2)
    audit = audit_orders(now=timezone.now(), max_age=timedelta(hours=1))
    assert audit.contradictions == []


class TestPlacing:
    @pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
    def test_what_differs_from_the_row_is_refused(self, forged: dict[str, Any]) -> None:
        place()
        assert accepting.accept([Forger().record(GENUINE | forged)], consumer="sagas") == 0
        [reason] = refused(1)
        [field] = forged
        assert reason == f"{field} of the command differ from those of order F"
        assert (Saga.objects.count(), InboxMessage.objects.count()) == (0, 0)

    @pytest.mark.parametrize(
        "payload",
        [[], "F", None, 1, {}, {"order_id": None}, {"order_id": ["F"]}, {"order_id": {}},
         {"order_id": "F" * 1000}, {"order_id": "F\0"}, {"order_id": "\ud800"}, {"order_id": 1}],
    )  # fmt: skip
    def test_what_points_to_no_order_is_refused(self, payload: object) -> None:
        place()
        assert accepting.accept([Forger().record(payload)], consumer="sagas") == 0
        assert refused(1) == ["the command names no order: `order_id` must be an order's id"]

    def test_two_before_the_orders_own(self, shop: Shop) -> None:
        forger = Forger()
        forger.send(shop, GENUINE | {"amount": "0.01"})
        forger.send(shop, GENUINE)
        assert refused(2) == ["there is no order 'F'", "there is no order 'F'"]
        assert not Saga.objects.exists()
        place()
        assert_fulfilled_as_ordered()

    def test_one_between_the_order_and_its_own_command(self) -> None:
        """In one batch, and in front: the saga begins by the one that says what the row says."""
        place()
        forger = Forger()
        batch = [forger.record(GENUINE | {"amount": "0.01"}), forger.record(GENUINE)]
        assert accepting.accept(batch, consumer="sagas") == 1
        assert decode(Saga.objects.get().input) == {"order_id": "F", "amount": PRICE}
        assert len(refused(1)) == 1

    def test_one_afterwards(self, shop: Shop) -> None:
        place()
        assert_fulfilled_as_ordered()
        forger = Forger()
        forger.send(shop, GENUINE | {"amount": "0.01"})
        forger.send(shop, GENUINE)
        until(lambda: InboxMessage.objects.filter(message_id__endswith="-2").exists())
        assert len(refused(1)) == 1
        assert_fulfilled_as_ordered()

    def test_further_fields_say_nothing_of_ours(self) -> None:
        place()
        more = GENUINE | {"status": "fulfilled", "transaction_id": "TXN-1", "saga_id": "x"}
        assert accepting.accept([Forger().record(more)], consumer="sagas") == 1
        assert decode(Saga.objects.get().input) == {"order_id": "F", "amount": PRICE}

    @pytest.mark.on_sqlite
    @pytest.mark.parametrize("type_", ["orders.place", "orders.cancel"])
    def test_an_outage_refuses_nothing(self, type_: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the row cannot be looked at, the command waits; refused, it would be lost."""
        place()
        cancel_order(order_id="F", reason="")
        with monkeypatch.context() as patch:
            patch.setitem(connection.settings_dict, "NAME", "/there/is/no/such/file")
            connection.close()
            self.assert_waits(type_)
        connection.close()
        self.assert_accepted_afterwards(type_)

    @pytest.mark.on_postgresql
    @pytest.mark.parametrize("type_", ["orders.place", "orders.cancel"])
    def test_a_killed_connection_refuses_nothing(self, type_: str) -> None:
        place()
        cancel_order(order_id="F", reason="")
        with connection.cursor() as cursor, suppress(OperationalError):
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        self.assert_waits(type_)
        connection.close()
        self.assert_accepted_afterwards(type_)

    @pytest.mark.on_postgresql
    @pytest.mark.parametrize("type_", ["orders.place", "orders.cancel"])
    def test_a_statement_that_took_too_long_refuses_nothing(self, type_: str) -> None:
        place()
        cancel_order(order_id="F", reason="")
        locked, over = Event(), Event()

        def lock(_: Event) -> None:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("LOCK TABLE orders_order IN ACCESS EXCLUSIVE MODE")
                locked.set()
                assert over.wait(TIMEOUT)

        with in_thread(lock):
            assert locked.wait(TIMEOUT)
            with connection.cursor() as cursor:
                cursor.execute("SET statement_timeout = '100ms'; SET lock_timeout = 0")
            self.assert_waits(type_)
            over.set()
        with connection.cursor() as cursor:
            # The pool gives the connection to another test, as it is.
            cursor.execute("RESET statement_timeout; RESET lock_timeout")
        self.assert_accepted_afterwards(type_)

    def assert_waits(self, type_: str) -> None:
        with pytest.raises(OperationalError):
            accepting.accept([Forger().record(GENUINE, type_=type_)], consumer="sagas")

    def assert_accepted_afterwards(self, type_: str) -> None:
        assert not RefusedCommand.objects.exists()
        accepting.accept([Forger().record(GENUINE)], consumer="sagas")
        accepting.accept([Forger().record(GENUINE, type_=type_)], consumer="sagas")
        assert not RefusedCommand.objects.exists()


class ToAReplica:
    """A router that sends every read to a replica, which is not there."""

    def db_for_read(self, *_: object, **__: object) -> str:
        return "replica"


@pytest.mark.parametrize("read", [placed_order, requested_cancel])
def test_a_command_is_compared_where_orders_are_written(read: Callable[[object], object]) -> None:
    """A replica that lags would not have the row yet, and a refused command does not come again."""
    order = place()
    cancel_order(order_id="F", reason="changed my mind")
    with override_settings(DATABASE_ROUTERS=[ToAReplica()]):
        assert read(GENUINE) in (order, "changed my mind")


class TestTheSteps:
    @pytest.mark.usefixtures("shop")
    def test_they_take_the_amount_from_the_row(self) -> None:
        """Also in a saga that began with another amount."""
        found = saga_type("order")
        assert found is not None
        with transaction.atomic():  # the relay does not see the command before there is the saga
            order = place()
            Saga.objects.create(
                id=order.saga_id,
                name="order",
                key="F",
                definition_hash=found.definition_hash,
                input=encode({"order_id": "F", "amount": Decimal("0.01")}),
            )
        assert_fulfilled_as_ordered()

    @pytest.mark.parametrize(
        ("taken", "reason"),
        [(None, "order F is not paid for"), ("0.01", "0.01 were taken for order F, which costs")],
    )
    def test_nothing_is_shipped_that_is_not_paid_for(self, taken: str | None, reason: str) -> None:
        place()
        fulfilment.reserve_stock(order_id="F")
        if taken:
            fulfilment.record_charge(
                order_id="F", charge=fulfilment.Charge("K", "T", Decimal(taken))
            )
        with pytest.raises(NotPaid, match=reason):
            fulfilment.ship(order_id="F")
        assert not Shipment.objects.exists()

    def test_nor_what_is_refunded(self) -> None:
        place()
        fulfilment.reserve_stock(order_id="F")
        fulfilment.record_charge(order_id="F", charge=fulfilment.Charge("K", "T", PRICE))
        fulfilment.record_refund(order_id="F", charge_key="K")
        with pytest.raises(NotPaid):
            fulfilment.ship(order_id="F")

    def test_an_amount_that_would_be_stored_as_another_is_no_order(self) -> None:
        items = [Item("BOOK", "A book", 1)]
        with pytest.raises(ValueError, match="two decimals"):
            place_order(order_id="F", user_id="U", items=items, amount=Decimal("9.999"))
        assert not Order.objects.exists()

    @pytest.mark.usefixtures("shop")
    def test_a_whole_amount_is_its_own_commands(self) -> None:
        items = [Item("BOOK", "A book", 1)]
        place_order(order_id="F", user_id="U", items=items, amount=Decimal(9))
        until(lambda: Order.objects.filter(status=OrderStatus.FULFILLED).exists())


class TestCancelling:
    CANCEL = {"order_id": "F", "reason": "forged"}

    def begun(self) -> Order:
        order = place()
        assert accepting.accept([Forger().record(GENUINE)], consumer="sagas") == 1
        return order

    def test_one_that_nobody_has_asked_for_is_refused(self) -> None:
        self.begun()
        cancel = Forger().record(self.CANCEL, type_="orders.cancel")
        assert accepting.accept([cancel], consumer="sagas") == 0
        assert refused(1) == ["nobody has asked this service to cancel order F"]
        saga = Saga.objects.get()
        assert (saga.status, saga.cancel_reason) == (SagaStatus.PENDING, "")

    def test_for_no_order(self) -> None:
        cancel = Forger().record(self.CANCEL, type_="orders.cancel")
        assert accepting.accept([cancel], consumer="sagas") == 0
        assert refused(1) == ["there is no order 'F'"]

    def test_the_reason_is_the_one_that_was_given_to_us(self) -> None:
        self.begun()
        cancel_order(order_id="F", reason="found it cheaper")
        cancel_order(order_id="F", reason="another thought")
        cancel = Forger().record(self.CANCEL, type_="orders.cancel")
        assert accepting.accept([cancel], consumer="sagas") == 1
        assert Saga.objects.get().cancel_reason == "found it cheaper"

    def test_the_request_is_on_the_order_once(self) -> None:
        place()
        before = timezone.now()
        cancel_order(order_id="F", reason="first")
        first = Order.objects.get().cancel_requested_at
        cancel_order(order_id="F", reason="second")
        order = Order.objects.get()
        assert (order.cancel_reason, order.cancel_requested_at) == ("first", first)
        assert first is not None
        assert first >= before

    def test_a_forged_one_leaves_the_order_to_be_fulfilled(self, shop: Shop) -> None:
        Forger().send(shop, self.CANCEL, type_="orders.cancel")
        assert len(refused(1)) == 1
        place()
        assert_fulfilled_as_ordered()


class TestACharge:
    """That a person has resolved, of which our books know nothing."""

    BY = By("ann", "paid by bank transfer")

    @pytest.fixture
    def parked(self, shop: Shop) -> Order:  # noqa: ARG002 - it works
        """Parked at the charge, then resolved: at the pivot the books contradict the journal."""
        with transaction.atomic():  # before a worker claims it
            order = place()
            found = saga_type("order")
            assert found is not None
            Saga.objects.create(
                id=order.saga_id,
                name="order",
                key="F",
                definition_hash=found.definition_hash,
                input=encode({"order_id": "F"}),
                epoch=4,
                status=SagaStatus.PARKED,
                park_reason="3 workers in a row died or stalled with it",
            )
        interventions.resolve(order.saga_id, "charge_payment", StepKind.FORWARD, by=self.BY)
        until(lambda: Order.objects.filter(status=OrderStatus.ATTENTION).exists())
        return order

    def books(self) -> tuple[int, int, int]:
        book = Product.objects.get(product_id="BOOK")
        return book.on_hand, book.reserved, book.shipped

    def test_parks_the_order_and_undoes_nothing(self, parked: Order) -> None:
        saga = Saga.objects.get()
        assert saga.status == SagaStatus.PARKED
        assert saga.park_reason == "ship_order needs a person: order F is not paid for"
        assert (saga.failure, saga.past_pivot) == ("", False)
        assert Order.objects.get(pk=parked.pk).reason == saga.park_reason
        assert self.books() == (8, 2, 0)
        assert not SimulatedCharge.objects.exists()

    def test_ships_once_it_is_entered(self, parked: Order) -> None:
        fulfilment.record_charge(
            order_id="F",
            charge=fulfilment.Charge(
                step_key(parked.saga_id, "charge_payment", StepKind.FORWARD), "BANK-4711", PRICE
            ),
        )
        interventions.retry(parked.saga_id, by=self.BY)
        until(lambda: Order.objects.filter(status=OrderStatus.FULFILLED).exists())
        assert self.books() == (8, 0, 2)

    def test_is_undone_where_a_person_says_so(self, parked: Order) -> None:
        interventions.cancel(parked.saga_id, by=By("ann", "the money never came"))
        until(lambda: Order.objects.filter(status=OrderStatus.CANCELLED).exists())
        assert self.books() == (10, 0, 0)
        assert Payment.objects.get().status == PaymentStatus.REFUNDED
