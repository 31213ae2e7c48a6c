"""Cancels of orders: commands with the order's key, so that they reach the saga after its order."""

from django.db import transaction

from orders.errors import CancelTooLate, UnknownOrder
from orders.messages import CANCEL_ORDER, COMMANDS
from orders.models import Order, Shipment
from outbox import enqueue
from outbox.deadlocks import retry_deadlocks


@retry_deadlocks
def cancel_order(*, order_id: str, reason: str) -> Order:
    """Ask for an order's cancel. It is then undone, unless its shipment comes first.

    Raises:
        UnknownOrder: there is no such order.
        CancelTooLate: it is shipped or has ended.
    """
    with transaction.atomic():
        order = Order.objects.select_for_update(no_key=True).filter(order_id=order_id).first()
        if order is None:
            raise UnknownOrder(f"there is no order {order_id!r}")
        if order.has_ended:
            raise CancelTooLate(f"order {order_id} is {order.status} already")
        if Shipment.objects.filter(order=order).exists():
            raise CancelTooLate(f"order {order_id} is shipped already")
        payload = {"order_id": order_id, "reason": reason}
        enqueue(topic=COMMANDS, key=order_id, type=CANCEL_ORDER, payload=payload)
    return order
