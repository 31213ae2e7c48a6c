"""Place orders and keep stock. Each service owns its transaction, and enqueues last."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.db import IntegrityError, transaction
from django.db.models import F

from orders.commands import place_command
from orders.errors import OrderConflict
from orders.messages import COMMANDS, PLACE_ORDER, SAGA_NAME
from orders.models import Order, Product
from orders.products import check_known
from outbox import enqueue
from saga_runtime.correlation import current
from saga_runtime.deadlocks import retry_deadlocks
from sagas import saga_id


@dataclass(frozen=True, slots=True)
class Item:
    """Hold one line of an order."""

    product_id: str
    name: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Placed:
    """Hold the result of placing an order.

    Attributes:
        is_new: False where the same order had been placed before.
    """

    order: Order
    is_new: bool


@retry_deadlocks
def place_order(
    *, order_id: str | None, user_id: str, items: Sequence[Item], amount: Decimal
) -> Placed:
    """Store an order and the command that starts its saga, in one transaction.

    Args:
        order_id: the public id; None to have one made.
        user_id: who orders.
        items: each product once.
        amount: two decimals at most.

    Raises:
        UnknownProducts: products do not exist; nothing is stored.
        OrderConflict: the id is taken by an order with other content.
        ValueError: the amount has more than two decimals, and would be stored as another amount.
    """
    if amount != round(amount, 2):
        raise ValueError(f"the amount {amount} has more than two decimals")
    check_known([item.product_id for item in items])
    order = _build_order(order_id or f"ORD-{uuid.uuid4().hex.upper()}", user_id, items, amount)
    try:
        with transaction.atomic():
            enqueue(
                topic=COMMANDS,
                key=order.order_id,
                type=PLACE_ORDER,
                payload=place_command(order),
                insert_first=[order],
            )
    except IntegrityError:
        before = Order.objects.filter(order_id=order.order_id).first()
        if before is None:
            raise
        return _same_order(before, order)
    return Placed(order, is_new=True)


def receive_stock(*, product_id: str, name: str, quantity: int) -> Product:
    """Put a quantity of a product into stock, a new product, too.

    Returns:
        The product as it is now.
    """
    with transaction.atomic():
        product, _ = Product.objects.get_or_create(product_id=product_id, defaults={"name": name})
        Product.objects.filter(pk=product.pk).update(
            received=F("received") + quantity, on_hand=F("on_hand") + quantity
        )
    product.refresh_from_db()
    return product


def _same_order(before: Order, order: Order) -> Placed:
    """Take an order for one placed before.

    Raises:
        OrderConflict: their contents differ.
    """
    if any(
        getattr(before, name) != getattr(order, name) for name in ("user_id", "amount", "items")
    ):
        raise OrderConflict(f"another order has the id {order.order_id}, with other content")
    return Placed(before, is_new=False)


def _build_order(order_id: str, user_id: str, items: Sequence[Item], amount: Decimal) -> Order:
    """Build the row of a new order, under the request's correlation."""
    correlation = current()
    return Order(
        order_id=order_id,
        user_id=user_id,
        items=[{"id": i.product_id, "name": i.name, "quantity": i.quantity} for i in items],
        amount=amount,
        saga_id=saga_id(SAGA_NAME, order_id),
        correlation_id=correlation.id,
        traceparent=correlation.traceparent,
    )
