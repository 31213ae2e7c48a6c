"""Orders to crash with, each with a product of its own, and what has become of them."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import Record
from orders.models import (
    Order,
    Payment,
    Product,
    Reservation,
    Shipment,
    SimulatedCharge,
)
from orders.services import Item, place_order, receive_stock
from outbox.models import OutboxMessage
from sagas.inbox import accepting
from sagas.models import Saga

Effects = dict[str, Any]

STOCK = 10
QUANTITY = 2


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders whose ids begin with this prefix."""

    prefix: str
    amount: str = "99.99"

    def id_of(self, n: int) -> str:
        return f"{self.prefix}-{n}"

    def place(self, n: int) -> Order:
        """Place the order; its command is in the outbox."""
        order_id = self.id_of(n)
        receive_stock(product_id=f"P-{order_id}", name="A book", quantity=STOCK)
        return place_order(
            order_id=order_id,
            user_id="U-1",
            items=[Item(f"P-{order_id}", "A book", QUANTITY)],
            amount=Decimal(self.amount),
        ).order

    def begin(self, n: int) -> UUID:
        """Place the order and accept its command, as relay and consumer would."""
        order = self.place(n)
        accepting.accept([command_of(order)], consumer="sagas")
        return order.saga_id

    def effects(self, n: int) -> Effects:
        return effects(self.id_of(n))


def command_of(order: Order) -> Record:
    row = OutboxMessage.objects.get(key=order.order_id, type="orders.place")
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(row.message_id),
        "ce_type": row.type,
        "ce_source": "/tests",
        "ce_subject": row.key,
        "content-type": "application/json",
    }
    return Record(
        topic=row.topic,
        partition=0,
        offset=row.id,
        key=row.key.encode(),
        value=bytes(row.payload),
        headers=tuple((name, text.encode()) for name, text in headers.items()),
    )


def effects(order_id: str) -> Effects:
    """All that the order has done, without the ids in which two orders differ."""
    order = Order.objects.get(order_id=order_id)
    product = Product.objects.get(product_id=f"P-{order_id}")
    # Where the outcome is unknown the key of a charge is closed, which moves no money.
    charges = SimulatedCharge.objects.filter(reference=order_id).exclude(status="closed")
    payments = Payment.objects.filter(order=order).exclude(transaction_id="")
    messages = OutboxMessage.objects.filter(key=order_id)
    found: Effects = {
        "order": order.status,
        "reason": order.reason,
        "stock": (product.on_hand, product.reserved, product.shipped),
        "reservations": [*rows(Reservation.objects.filter(order=order), "quantity", "status")],
        "ledger": [*rows(charges, "status", "amount")],
        "payments": [*rows(payments, "status", "amount")],
        "shipments": [*rows(Shipment.objects.filter(order=order), "tracking")],
        "messages": sorted(messages.values_list("type", flat=True)),
        "distinct messages": len(set(messages.values_list("message_id", flat=True))),
        "sagas": Saga.objects.filter(key=order_id).count(),
    }
    return {name: anonymous(value, order) for name, value in found.items()}


def rows(query: Any, *fields: str) -> list[tuple[str, ...]]:
    return [tuple(map(str, row)) for row in query.order_by("pk").values_list(*fields)]


def anonymous(value: Any, order: Order) -> Any:
    if isinstance(value, str):
        return value.replace(order.order_id, "ORDER").replace(str(order.saga_id), "SAGA")
    if isinstance(value, list | tuple):
        return type(value)(anonymous(each, order) for each in value)
    return value


FULFILLED: Effects = {
    "order": "fulfilled",
    "reason": "",
    "stock": (STOCK - QUANTITY, 0, QUANTITY),
    "reservations": [(str(QUANTITY), "shipped")],
    "ledger": [("charged", "99.99")],
    "payments": [("charged", "99.99")],
    "shipments": [("TRACK-ORDER",)],
    "messages": ["order.fulfilled", "orders.place"],
    "distinct messages": 2,
    "sagas": 1,
}
UNDONE: Effects = FULFILLED | {
    "order": "rejected",
    "stock": (STOCK, 0, 0),
    "reservations": [(str(QUANTITY), "released")],
    "shipments": [],
    "messages": ["order.rejected", "orders.place"],
}
REFUNDED: Effects = UNDONE | {
    "ledger": [("refunded", "99.99")],
    "payments": [("refunded", "99.99")],
}


def assert_cancelled(found: Effects) -> None:
    """Undone however far it had come, and told of once."""
    assert found["order"] == "cancelled", found
    assert found["reason"] == "by the customer", found
    assert found["stock"] == (STOCK, 0, 0), found
    assert {status for _, status in found["reservations"]} <= {"released"}, found
    assert [status for status, _ in found["ledger"]] in ([], ["refunded"]), found
    assert [status for status, _ in found["payments"]] in ([], ["refunded"]), found
    assert found["shipments"] == [], found
    assert found["messages"] == ["order.cancelled", "orders.place"], found
    assert found["distinct messages"] == 2, found
