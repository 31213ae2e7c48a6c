"""Cancel orders, by a command with the order's key, which reaches the saga after the order."""

from django.db import transaction
from django.utils import timezone

from orders.errors import CancelTooLate, UnknownOrder
from orders.messages import CANCEL_ORDER, COMMANDS
from orders.models import Order, Shipment
from outbox import enqueue
from saga_runtime.deadlocks import retry_deadlocks


@retry_deadlocks
def cancel_order(*, order_id: str, reason: str) -> Order:
    """Ask for an order's cancel; the saga undoes the order, unless the shipment comes first.

    Args:
        order_id: the public id.
        reason: kept with the order.

    Returns:
        The order, with the request noted.

    Raises:
        UnknownOrder: there is no such order.
        CancelTooLate: the order is shipped or has ended.
    """
    with transaction.atomic():
        order = Order.objects.select_for_update(no_key=True).filter(order_id=order_id).first()
        if order is None:
            raise UnknownOrder(f"there is no order {order_id!r}")
        if order.has_ended:
            raise CancelTooLate(f"order {order_id} is {order.status} already")
        if Shipment.objects.filter(order=order).exists():
            raise CancelTooLate(f"order {order_id} is shipped already")
        _note_request(order, reason)
        payload = {"order_id": order_id, "reason": reason}
        enqueue(topic=COMMANDS, key=order_id, type=CANCEL_ORDER, payload=payload)
    return order


def _note_request(order: Order, reason: str) -> None:
    """Keep the first request on the order: a command alone cancels nothing."""
    if order.cancel_requested_at is None:
        order.cancel_requested_at, order.cancel_reason = timezone.now(), reason
        order.save(update_fields=["cancel_requested_at", "cancel_reason", "updated_at"])
