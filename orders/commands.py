"""Commands of orders: what they say, and whether the order's row says so too.

A command is a pointer to a row of ours. Whoever may write to the topic can send one, so what it
says is compared with the row, and only the row is acted upon. The order and its command commit
together: a command of ours always finds its row.
"""

from typing import Any

from django.db import router

from orders.errors import CommandMismatch, UnknownOrder
from orders.models import MAX_ID, Order
from saga_runtime.text import is_storable


def place_command(order: Order) -> dict[str, object]:
    """Return the payload of `orders.place` for this order."""
    return {
        "order_id": order.order_id,
        "user_id": order.user_id,
        "items": order.items,
        "amount": f"{order.amount:.2f}",
    }


def placed_order(command: Any) -> Order:
    """Return the order that a command `orders.place` points to.

    Args:
        command: a payload as it came, from anywhere.

    Raises:
        UnknownOrder: there is no such order.
        CommandMismatch: the order is another than the command says.
    """
    order = _order_of(command)
    wrong = [
        name
        for name, value in place_command(order).items()
        if name in command and command[name] != value  # a field that is missing says nothing
    ]
    if wrong:
        raise CommandMismatch(
            f"{' and '.join(wrong)} of the command differ from those of order {order.order_id}"
        )
    return order


def requested_cancel(command: Any) -> str:
    """Return the reason with which the cancel was asked for that `orders.cancel` points to.

    Args:
        command: a payload as it came, from anywhere; its own reason does not count.

    Raises:
        UnknownOrder: there is no such order.
        CommandMismatch: nobody has asked us for a cancel of that order.
    """
    order = _order_of(command)
    if order.cancel_requested_at is None:
        raise CommandMismatch(f"nobody has asked this service to cancel order {order.order_id}")
    return order.cancel_reason


def _order_of(command: Any) -> Order:
    order_id = command.get("order_id") if isinstance(command, dict) else None
    if not is_storable(order_id, longest=MAX_ID):
        raise UnknownOrder("the command names no order: `order_id` must be an order's id")
    # Where it was written: a replica that lags does not have it yet, and a command comes once.
    orders = Order.objects.using(router.db_for_write(Order))
    order = orders.filter(order_id=order_id).first()
    if order is None:
        raise UnknownOrder(f"there is no order {order_id!r}")
    return order
