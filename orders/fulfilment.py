"""Change stock, payments and shipments, for the order saga. Callers own the transaction."""

from decimal import Decimal

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from orders.errors import NotPaid, OutOfStock, UnknownOrder
from orders.models import (
    Order,
    OrderStatus,
    Payment,
    PaymentStatus,
    Product,
    Reservation,
    ReservationStatus,
    Shipment,
)


def reserve_stock(*, order_id: str) -> Order:
    """Reserve every item of an order, or none.

    Returns:
        The order.

    Raises:
        UnknownOrder: there is no such order.
        OutOfStock: too little of a product is on hand.
    """
    order = Order.objects.filter(order_id=order_id).first()
    if order is None:
        raise UnknownOrder(f"there is no order {order_id}")
    wanted = {item["id"]: item["quantity"] for item in order.items}
    # Products in one order, so that two orders never lock them crosswise.
    products = Product.objects.filter(product_id__in=wanted).order_by("id")
    for product in products:
        quantity = wanted.pop(product.product_id)
        taken = Product.objects.filter(pk=product.pk, on_hand__gte=quantity).update(
            on_hand=F("on_hand") - quantity, reserved=F("reserved") + quantity
        )
        if not taken:
            raise OutOfStock(f"out of stock: {quantity} of {product.product_id} are not on hand")
        Reservation.objects.create(order=order, product=product, quantity=quantity)
    if wanted:
        raise OutOfStock(f"out of stock: there is no product {', '.join(wanted)}")
    Order.objects.filter(pk=order.pk).update(
        status=OrderStatus.PROCESSING, updated_at=timezone.now()
    )
    return order


def release_stock(*, order_id: str) -> None:
    """Give back an order's reservations, as far as there are any."""
    for reservation in _active_reservations(order_id):
        Product.objects.filter(pk=reservation.product_id).update(
            on_hand=F("on_hand") + reservation.quantity,
            reserved=F("reserved") - reservation.quantity,
        )
        _close(reservation, ReservationStatus.RELEASED)


def amount_due(*, order_id: str) -> Decimal:
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
    return amount_due(order_id=order_id) if payment is None else payment.amount


def record_charge(*, order_id: str, key: str, transaction_id: str, amount: Decimal) -> None:
    """Enter a charge into our books; a second time, or after its refund, nothing changes.

    Args:
        order_id: the public id.
        key: the charge's idempotency key.
        transaction_id: the provider's name for the charge.
        amount: two decimals.
    """
    with transaction.atomic():
        Payment.objects.get_or_create(
            key=key,
            defaults={
                "order": Order.objects.get(order_id=order_id),
                "transaction_id": transaction_id,
                "amount": amount,
            },
        )


def record_refund(*, order_id: str, charge_key: str) -> None:
    """Enter a refund into our books, even of a charge that was never entered.

    A worker that was stopped before entering the charge must not enter it after the refund.

    Args:
        order_id: the public id.
        charge_key: the charge's idempotency key.
    """
    with transaction.atomic():
        order = Order.objects.get(order_id=order_id)
        refunded = {"status": PaymentStatus.REFUNDED, "refunded_at": timezone.now()}
        _, is_new = Payment.objects.get_or_create(
            key=charge_key, defaults={"order": order, "amount": order.amount, **refunded}
        )
        if not is_new:
            Payment.objects.filter(key=charge_key, status=PaymentStatus.CHARGED).update(**refunded)


def ship(*, order_id: str) -> Shipment:
    """Turn an order's reservations into a shipment.

    Raises:
        NotPaid: our books lack the whole amount, whatever earlier steps have reported.
    """
    order = Order.objects.select_related("payment").get(order_id=order_id)
    _check_paid(order)
    for reservation in _active_reservations(order_id):
        Product.objects.filter(pk=reservation.product_id).update(
            reserved=F("reserved") - reservation.quantity,
            shipped=F("shipped") + reservation.quantity,
        )
        _close(reservation, ReservationStatus.SHIPPED)
    return Shipment.objects.create(order=order, tracking=f"TRACK-{order_id}")


def _check_paid(order: Order) -> None:
    """Check that our books have the order's whole amount.

    Raises:
        NotPaid: they have not.
    """
    payment: Payment | None = getattr(order, "payment", None)
    if payment is None or payment.status != PaymentStatus.CHARGED:
        raise NotPaid(f"order {order.order_id} is not paid for")
    if payment.amount != order.amount:
        raise NotPaid(
            f"{payment.amount} were taken for order {order.order_id}, which costs {order.amount}"
        )


def _active_reservations(order_id: str) -> list[Reservation]:
    reservations = Reservation.objects.filter(
        order__order_id=order_id, status=ReservationStatus.ACTIVE
    )
    return list(reservations.order_by("product_id"))


def _close(reservation: Reservation, status: ReservationStatus) -> None:
    reservation.status = status
    reservation.save(update_fields=["status"])
