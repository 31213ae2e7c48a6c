"""Change stock, payments and shipments, for the order saga. Callers own the transaction."""

from dataclasses import dataclass
from decimal import Decimal

from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from orders.errors import NotPaid, OutOfStock, UnknownOrder
from orders.models import (
    BY_ORDER_ID,
    Order,
    OrderStatus,
    Payment,
    PaymentStatus,
    Product,
    Reservation,
    ReservationStatus,
    Shipment,
)
from saga_runtime.round_trips import Statement, run_together, this_moment

# No row for a product that does not exist.
_RESERVE = """
INSERT INTO orders_reservation (order_id, product_id, quantity, status)
SELECT %s, id, %s, %s FROM orders_product WHERE product_id = %s
"""
_SET_STATUS = "UPDATE orders_order SET status = %s, updated_at = %s WHERE id = %s"
# Always in the same order, or two orders of the same products could deadlock.
_LOCK = """
SELECT id FROM orders_product WHERE id IN (
    SELECT product_id FROM orders_reservation WHERE order_id = %s
) ORDER BY id FOR NO KEY UPDATE
"""
_TAKE_FROM_STOCK = """
UPDATE orders_product SET on_hand = on_hand - %s, reserved = reserved + %s
WHERE product_id = %s AND on_hand >= %s RETURNING product_id
"""
_SEND_FROM_STOCK = f"""
UPDATE orders_product SET reserved = reserved - quantity, shipped = shipped + quantity
FROM orders_reservation AS held
WHERE orders_product.id = held.product_id AND held.order_id = %s
    AND held.status = '{ReservationStatus.ACTIVE}'
"""  # noqa: S608
_CLOSE_RESERVATIONS = f"""
UPDATE orders_reservation SET status = %s
WHERE order_id = %s AND status = '{ReservationStatus.ACTIVE}'
"""  # noqa: S608
_SHIP = """
INSERT INTO orders_shipment (order_id, tracking, created_at) VALUES (%s, %s, %s) RETURNING id
"""
# What an order costs, what our books have of it, and how many products it has reserved.
_PAID = """
SELECT placed.id, placed.amount, payment.amount, payment.status,
    (SELECT count(*) FROM orders_reservation WHERE order_id = placed.id)
FROM orders_order AS placed LEFT JOIN orders_payment AS payment ON payment.order_id = placed.id
WHERE placed.order_id = %s
"""
_ENTER_CHARGE = """
INSERT INTO orders_payment (order_id, key, transaction_id, amount, status, charged_at)
SELECT id, %s, %s, %s, %s, %s FROM orders_order WHERE order_id = %s ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Charge:
    """Hold a charge that the payment provider has confirmed.

    Attributes:
        key: the charge's idempotency key.
        transaction_id: the provider's name for the charge.
        amount: two decimals.
    """

    key: str
    transaction_id: str
    amount: Decimal


def reserve_stock(*, order_id: str) -> Order:
    """Reserve every item of an order, or none.

    Returns:
        The order.

    Raises:
        UnknownOrder: there is no such order.
        OutOfStock: too little of a product is on hand.
    """
    order = BY_ORDER_ID.find(order_id)
    if order is None:
        raise UnknownOrder(f"there is no order {order_id}")
    wanted = {item["id"]: item["quantity"] for item in order.items}
    reserve = [
        (_RESERVE, [order.pk, quantity, ReservationStatus.ACTIVE.value, product_id])
        for product_id, quantity in wanted.items()
    ]
    take = [
        (_TAKE_FROM_STOCK, [quantity, quantity, product_id, quantity])
        for product_id, quantity in wanted.items()
    ]
    # The products last: until the commit, other orders wait for their rows.
    found = run_together(
        *reserve,
        (_SET_STATUS, [OrderStatus.PROCESSING.value, this_moment(), order.pk]),
        *_lock_products(order.pk, len(wanted)),
        *take,
    )
    taken = {product_id for rows in found[-len(take) :] for (product_id,) in rows}
    if missing := sorted(wanted.keys() - taken):
        raise OutOfStock(_describe_missing({each: wanted[each] for each in missing}))
    return order


def _lock_products(order: int, count: int) -> list[Statement]:
    """Lock the rows of an order's reserved products.

    Args:
        order: the number of the order's row.
        count: how many products there are.
    """
    # A single row is in order by itself, and SQLite writes one transaction at a time.
    is_needed = count > 1 and connection.vendor == "postgresql"
    return [(_LOCK, [order])] if is_needed else []


def _describe_missing(wanted: dict[str, int]) -> str:
    """Say what is missing in stock, for a person."""
    known = set(Product.objects.filter(product_id__in=wanted).values_list("product_id", flat=True))
    parts = [
        f"{quantity} of {product_id} are not on hand"
        if product_id in known
        else f"there is no product {product_id}"
        for product_id, quantity in wanted.items()
    ]
    return f"out of stock: {', '.join(parts)}"


def release_stock(*, order_id: str) -> None:
    """Give back an order's reservations, as far as there are any."""
    for reservation in _active_reservations(order_id):
        Product.objects.filter(pk=reservation.product_id).update(
            on_hand=F("on_hand") + reservation.quantity,
            reserved=F("reserved") - reservation.quantity,
        )
        _close(reservation, ReservationStatus.RELEASED)


def _amount_due(*, order_id: str) -> Decimal:
    """Look up an order's price.

    Returns:
        The amount of the order's row, two decimals.
    """
    return Order.objects.get(order_id=order_id).amount


def amount_charged(*, order_id: str, charge_key: str) -> Decimal:
    """Look up the amount of a charge.

    Args:
        order_id: the public id.
        charge_key: the charge's idempotency key.

    Returns:
        The amount in our books or, where the charge was never entered, the order's price; two
        decimals.
    """
    payment = Payment.objects.filter(key=charge_key).first()
    return _amount_due(order_id=order_id) if payment is None else payment.amount


def record_charge(*, order_id: str, charge: Charge) -> None:
    """Enter a charge into our books; a second time, or after its refund, nothing changes.

    Args:
        order_id: the public id.
        charge: what the provider has confirmed.
    """
    run_together(_enter(order_id, charge))


def _enter(order_id: str, charge: Charge) -> Statement:
    values = [charge.key, charge.transaction_id, str(charge.amount)]
    return _ENTER_CHARGE, [*values, PaymentStatus.CHARGED.value, this_moment(), order_id]


def record_refund(*, order_id: str, charge_key: str, transaction_id: str = "") -> None:
    """Enter a refund into our books, even of a charge that was never entered.

    A worker that was stopped before entering the charge must not enter it after the refund.

    Args:
        order_id: the public id.
        charge_key: the charge's idempotency key.
        transaction_id: the provider's name for the charge; empty where nobody knows of one.
    """
    with transaction.atomic():
        order = Order.objects.get(order_id=order_id)
        refunded = {"status": PaymentStatus.REFUNDED, "refunded_at": timezone.now()}
        _, is_new = Payment.objects.get_or_create(
            key=charge_key,
            defaults={
                "order": order,
                "transaction_id": transaction_id,
                "amount": order.amount,
                **refunded,
            },
        )
        if not is_new:
            Payment.objects.filter(key=charge_key, status=PaymentStatus.CHARGED).update(**refunded)


def ship(*, order_id: str, charge: Charge | None = None) -> Shipment:
    """Turn an order's reservations into a shipment.

    Args:
        order_id: the public id.
        charge: to be entered into our books before; None where they have it.

    Raises:
        UnknownOrder: there is no such order.
        NotPaid: our books lack the whole amount, whatever earlier steps have reported.
    """
    entered = [] if charge is None else [_enter(order_id, charge)]
    *_, found = run_together(*entered, (_PAID, [order_id]))
    if not found:
        raise UnknownOrder(f"there is no order {order_id}")
    [(number, amount, paid, status, products)] = found
    if status != PaymentStatus.CHARGED:
        raise NotPaid(f"order {order_id} is not paid for")
    if paid != amount:
        taken, price = (round(Decimal(str(each)), 2) for each in (paid, amount))
        raise NotPaid(f"{taken} were taken for order {order_id}, which costs {price}")
    tracking = f"TRACK-{order_id}"
    # The products last: until the commit, other orders wait for their rows.
    [(shipment,)], *_ = run_together(
        (_SHIP, [number, tracking, this_moment()]),
        *_lock_products(number, products),
        (_SEND_FROM_STOCK, [number]),
        (_CLOSE_RESERVATIONS, [ReservationStatus.SHIPPED.value, number]),
    )
    return Shipment(pk=shipment, order_id=number, tracking=tracking)


def _active_reservations(order_id: str) -> list[Reservation]:
    reservations = Reservation.objects.filter(
        order__order_id=order_id, status=ReservationStatus.ACTIVE
    )
    return list(reservations.order_by("product_id"))


def _close(reservation: Reservation, status: ReservationStatus) -> None:
    reservation.status = status
    reservation.save(update_fields=["status"])
