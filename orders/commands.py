"""Build and verify the commands of orders.

A command is a pointer to a row of ours. Anybody who may write to the topic can send a command, so
its content is compared with the row, and only the row is acted upon. An order and its command
commit together: a command of ours always finds its row.
"""

from typing import Any

from django.db import router

from orders.errors import CommandMismatch, UnknownOrder
from orders.models import BY_ORDER_ID, MAX_ID, Order
from saga_runtime.text import is_storable


def place_command(order: Order) -> dict[str, object]:
    """Build the payload of `orders.place` for an order."""
    return {
        "order_id": order.order_id,
        "user_id": order.user_id,
        "items": order.items,
        "amount": f"{order.amount:.2f}",
    }


def placed_order(command: Any) -> Order:
    """Find the order behind a command `orders.place`.

    Args:
        command: a payload as received, from anywhere.

    Raises:
        UnknownOrder: there is no such order.
        CommandMismatch: the command contradicts the order.
    """
    order = _order_of(command)
    wrong = [
        name
        for name, value in place_command(order).items()
        if name in command and command[name] != value  # a missing field contradicts nothing
    ]
    if wrong:
        raise CommandMismatch(
            f"{' and '.join(wrong)} of the command differ from those of order {order.order_id}"
        )
    return order


def requested_cancel(command: Any) -> str:
    """Find the request behind a command `orders.cancel`.

    Args:
        command: a payload as received, from anywhere; its own reason does not count.

    Returns:
        The reason of the request.

    Raises:
        UnknownOrder: there is no such order.
        CommandMismatch: no cancel of the order was requested from us.
    """
    order = _order_of(command)
    if order.cancel_requested_at is None:
        raise CommandMismatch(f"nobody has asked this service to cancel order {order.order_id}")
    return order.cancel_reason


def _order_of(command: Any) -> Order:
    """Find the order named by a command.

    Raises:
        UnknownOrder: the command names none, or there is no such order.
    """
    order_id = command.get("order_id") if isinstance(command, dict) else None
    if not is_storable(order_id, longest=MAX_ID):
        raise UnknownOrder("the command names no order: `order_id` must be an order's id")
    # From the database of the write: a lagging replica lacks the order, and a command comes once.
    order = BY_ORDER_ID.find(order_id, using=router.db_for_write(Order))
    if order is None:
        raise UnknownOrder(f"there is no order {order_id!r}")
    return order
