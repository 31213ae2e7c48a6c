"""Placing orders and keeping stock. Each service owns its transaction and enqueues last."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.db import IntegrityError, transaction
from django.db.models import F

from orders.errors import OrderConflict, UnknownProducts
from orders.messages import COMMANDS, PLACE_ORDER, SAGA_NAME
from orders.models import Order, OrderItem, Product
from outbox import enqueue
from outbox.correlation import current
from outbox.deadlocks import retry_deadlocks
from sagas import saga_id


@dataclass(frozen=True, slots=True)
class Item:
    """One line of an order."""

    product_id: str
    name: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Placed:
    """`is_new` is False where the same order had been placed before."""

    order: Order
    is_new: bool


@retry_deadlocks
def place_order(
    *, order_id: str | None, user_id: str, items: Sequence[Item], amount: Decimal
) -> Placed:
    """Store an order and the command that starts its saga, in one transaction.

    Raises:
        UnknownProducts: nothing is stored.
        OrderConflict: the id is taken by an order with other content.
    """
    order_id = order_id or f"ORD-{uuid.uuid4().hex.upper()}"
    try:
        with transaction.atomic():
            before = Order.objects.filter(order_id=order_id).first()
            if before is not None:
                return _same(before, user_id, items, amount)
            return Placed(_store(order_id, user_id, items, amount), is_new=True)
    except IntegrityError:
        # Somebody placed an order with this id at the same time.
        before = Order.objects.filter(order_id=order_id).first()
        if before is None:
            raise
        return _same(before, user_id, items, amount)


def receive_stock(*, product_id: str, name: str, quantity: int) -> Product:
    """Put `quantity` of a product into stock; a product that is new is made."""
    with transaction.atomic():
        product, _ = Product.objects.get_or_create(product_id=product_id, defaults={"name": name})
        Product.objects.filter(pk=product.pk).update(
            received=F("received") + quantity, on_hand=F("on_hand") + quantity
        )
    product.refresh_from_db()
    return product


def _same(order: Order, user_id: str, items: Sequence[Item], amount: Decimal) -> Placed:
    stored = [Item(i.product_code, i.name, i.quantity) for i in order.items.all()]
    if (order.user_id, order.amount, stored) != (user_id, amount, list(items)):
        raise OrderConflict(f"another order has the id {order.order_id}, with other content")
    return Placed(order, is_new=False)


def _store(order_id: str, user_id: str, items: Sequence[Item], amount: Decimal) -> Order:
    ids = [item.product_id for item in items]
    products = {p.product_id: p for p in Product.objects.filter(product_id__in=ids)}
    unknown = [product_id for product_id in ids if product_id not in products]
    if unknown:
        raise UnknownProducts(unknown)
    correlation = current()
    order = Order.objects.create(
        order_id=order_id,
        user_id=user_id,
        amount=amount,
        saga_id=saga_id(SAGA_NAME, order_id),
        correlation_id=correlation.id,
        traceparent=correlation.traceparent,
    )
    OrderItem.objects.bulk_create(
        OrderItem(
            order=order,
            product=products[item.product_id],
            position=position,
            product_code=item.product_id,
            name=item.name,
            quantity=item.quantity,
        )
        for position, item in enumerate(items)
    )
    payload = {
        "order_id": order_id,
        "user_id": user_id,
        "items": [{"id": i.product_id, "name": i.name, "quantity": i.quantity} for i in items],
        "amount": str(amount),
    }
    enqueue(topic=COMMANDS, key=order_id, type=PLACE_ORDER, payload=payload)
    return order
