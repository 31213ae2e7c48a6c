"""What the order saga does to stock, payments and shipments. Callers own the transaction."""

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
    """Reserve every item of an order, or none, and return the order.

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
    """Give back what an order has reserved; nothing where it has reserved nothing."""
    for reservation in _active_reservations(order_id):
        Product.objects.filter(pk=reservation.product_id).update(
            on_hand=F("on_hand") + reservation.quantity,
            reserved=F("reserved") - reservation.quantity,
        )
        _close(reservation, ReservationStatus.RELEASED)


def amount_due(*, order_id: str) -> Decimal:
    """Return what the order costs, two decimals, as its row has it."""
    return Order.objects.get(order_id=order_id).amount


def amount_charged(*, order_id: str, charge_key: str) -> Decimal:
    """Return the amount of the charge under that key, two decimals: what our books have of it, or,
    where it was never entered, what the order costs."""
    payment = Payment.objects.filter(key=charge_key).first()
    return amount_due(order_id=order_id) if payment is None else payment.amount


def record_charge(*, order_id: str, key: str, transaction_id: str, amount: Decimal) -> None:
    """Enter a charge into our books; a second time, or after its refund, changes nothing."""
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
    """Enter a refund into our books, also of a charge that was never entered: a worker that was
    stopped before it entered the charge must not do so afterwards."""
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
        NotPaid: our books do not have the whole amount, whatever the steps before have said.
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
