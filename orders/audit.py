"""Audit orders: recompute stock, payments, shipments and statuses, and list every contradiction.

An unfinished order may still be changing, so only its age counts: older than a limit, it is a
contradiction.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q, Sum

from orders.models import (
    LedgerStatus,
    Order,
    OrderStatus,
    PaymentStatus,
    Product,
    ReservationStatus,
    SimulatedCharge,
)
from sagas.operations.statuses import ACTIVE_STATUSES, statuses

CHUNK = 1000
# Old sagas may be deleted (`manage.py sagas clean`), but not within a day of their end: till then a
# missing saga is a contradiction.
SAGA_KEPT = timedelta(days=1)
_ACTIVE = ReservationStatus.ACTIVE
_SHIPPED = ReservationStatus.SHIPPED

_SAGA_STATUSES = {
    OrderStatus.FULFILLED: {"completed"},
    OrderStatus.REJECTED: {"rolled_back"},
    OrderStatus.CANCELLED: {"rolled_back"},
    # Parked, or let go on by a person and not yet at its end.
    OrderStatus.ATTENTION: {"parked", *ACTIVE_STATUSES},
}


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Describe a contradiction.

    Attributes:
        about: the id of an order, product or charge.
        what: one sentence.
    """

    about: str
    what: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Hold the result of an audit.

    Attributes:
        orders: by status, how many orders there are.
        contradictions: all that were found.
        cleaned: how many orders ended so long ago that their sagas may be deleted, and are.
    """

    orders: dict[str, int]
    contradictions: list[Contradiction]
    cleaned: int

    def as_dict(self) -> dict[str, object]:
        """Convert the audit to plain values for JSON."""
        return asdict(self)


def audit_orders(*, now: datetime, max_age: timedelta) -> Audit:
    """Audit all orders as of one moment.

    Args:
        now: the time against which ages are measured.
        max_age: an unfinished order older than this is a contradiction.
    """
    counts: dict[str, int] = {}
    cleaned = 0
    with transaction.atomic():
        _freeze_view()
        contradictions = [*_check_stock(), *_check_ledger()]
        for chunk in _chunks():
            sagas = statuses([order.saga_id for order in chunk])
            charges = _charges_by_order(chunk)
            for order in chunk:
                counts[order.status] = counts.get(order.status, 0) + 1
                is_cleaned = _is_cleaned(order, sagas, now)
                cleaned += is_cleaned
                found = [] if is_cleaned else [*_check_saga(order, sagas)]
                found += _check_order(order, charges.get(order.order_id, []))
                contradictions += [Contradiction(order.order_id, what) for what in found]
                contradictions += _check_age(order, now, max_age, sagas)
    return Audit(counts, contradictions, cleaned)


def _freeze_view() -> None:
    """Let all queries of the transaction see the same moment."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _chunks() -> Iterator[list[Order]]:
    """Yield all orders, some at a time."""
    orders = Order.objects.order_by("id").with_details().iterator(chunk_size=CHUNK)
    while chunk := list(islice(orders, CHUNK)):
        yield chunk


def _charges_by_order(orders: list[Order]) -> dict[str, list[SimulatedCharge]]:
    """Fetch the gateway's charges for these orders."""
    ids = [order.order_id for order in orders]
    charges: dict[str, list[SimulatedCharge]] = {}
    for charge in SimulatedCharge.objects.filter(reference__in=ids):
        charges.setdefault(charge.reference, []).append(charge)
    return charges


def _check_stock() -> Iterator[Contradiction]:
    """Compare each product's stock with its reservations."""
    active = Sum("reservations__quantity", filter=Q(reservations__status=_ACTIVE), default=0)
    gone = Sum("reservations__quantity", filter=Q(reservations__status=_SHIPPED), default=0)
    for product in Product.objects.annotate(active=active, gone=gone):
        expected = {
            "reserved": product.active,
            "shipped": product.gone,
            "on_hand": product.received - product.active - product.gone,
        }
        for name, value in expected.items():
            stored = getattr(product, name)
            if stored != value:
                yield Contradiction(
                    product.product_id, f"{name} is {stored}, but its reservations make {value}"
                )


def _check_ledger() -> Iterator[Contradiction]:
    """Find charges for orders that do not exist."""
    known = Order.objects.values("order_id")
    for charge in SimulatedCharge.objects.exclude(reference__in=known).exclude(
        status=LedgerStatus.CLOSED
    ):
        yield Contradiction(charge.reference, f"{charge.status} by the gateway, but no such order")


def _check_age(
    order: Order, now: datetime, max_age: timedelta, sagas: dict[UUID, str]
) -> Iterator[Contradiction]:
    """Find orders that have taken too long."""
    age = now - order.created_at
    if order.status in (OrderStatus.PENDING, OrderStatus.PROCESSING) and age > max_age:
        what = f"{order.status} for {age.total_seconds():.0f} s without an end"
        if order.saga_id not in sagas:
            what += ", and no saga has begun: its command waits, or was refused"
        yield Contradiction(order.order_id, what)


def _is_cleaned(order: Order, sagas: dict[UUID, str], now: datetime) -> bool:
    """Tell whether the order's saga is gone, and may be."""
    is_old = order.has_ended and now - order.updated_at > SAGA_KEPT
    return is_old and order.saga_id not in sagas


def _check_saga(order: Order, sagas: dict[UUID, str]) -> Iterator[str]:
    """Compare the order's status with its saga's."""
    status = OrderStatus(order.status)
    if status in _SAGA_STATUSES and sagas.get(order.saga_id) not in _SAGA_STATUSES[status]:
        yield f"{status}, but its saga is {sagas.get(order.saga_id, 'missing')}"


def _check_order(order: Order, charges: list[SimulatedCharge]) -> Iterator[str]:
    """Compare an ended order with its charges, payment, shipment and reservations."""
    charged = [charge for charge in charges if charge.status == LedgerStatus.CHARGED]
    if len(charged) > 1:
        yield f"charged {len(charged)} times by the gateway"
    if order.status == OrderStatus.FULFILLED:
        yield from _check_fulfilled(order, charged)
    elif order.has_ended:
        yield from _check_undone(order, charged)


def _check_fulfilled(order: Order, charged: list[SimulatedCharge]) -> Iterator[str]:
    """Check that a fulfilled order is paid and shipped as ordered."""
    if not hasattr(order, "shipment"):
        yield "fulfilled, but not shipped"
    if not hasattr(order, "payment") or order.payment.status != PaymentStatus.CHARGED:
        yield "fulfilled, but not paid"
    elif order.payment.amount != order.amount:
        yield f"amount {order.amount}, but paid {order.payment.amount}"
    if _is_simulated(order) and [charge.amount for charge in charged] != [order.amount]:
        yield f"amount {order.amount}, but the gateway charged {[str(c.amount) for c in charged]}"
    shipped = {
        r.product.product_id: r.quantity
        for r in order.reservations.all()
        if r.status == ReservationStatus.SHIPPED
    }
    if shipped != {item["id"]: item["quantity"] for item in order.items}:
        yield "fulfilled, but what was shipped is not what was ordered"


def _check_undone(order: Order, charged: list[SimulatedCharge]) -> Iterator[str]:
    """Check that a rejected or cancelled order has left nothing behind."""
    if hasattr(order, "shipment"):
        yield f"{order.status}, but shipped"
    if hasattr(order, "payment") and order.payment.status == PaymentStatus.CHARGED:
        yield f"{order.status}, but paid and not refunded"
    if charged:
        yield f"{order.status}, but charged by the gateway"
    held = [r for r in order.reservations.all() if r.status != ReservationStatus.RELEASED]
    if held:
        yield f"{order.status}, but {len(held)} reservation(s) are {held[0].status}"


def _is_simulated(order: Order) -> bool:
    """Tell whether the gateway's ledger is in our database, and so can be compared."""
    return hasattr(order, "payment") and order.payment.transaction_id.startswith("TXN-")
