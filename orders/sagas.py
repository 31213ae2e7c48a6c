"""Define the order saga: reserve stock, take the money, ship.

`def` steps are local: their writes commit together with the journal, exactly once. `async def`
steps call other services under an idempotency key, again until there is an answer.
"""

from functools import cache
from typing import Any

from django.conf import settings
from sagaz import Saga, action, compensate
from sagaz.core.triggers import trigger

from orders import fulfilment
from orders.commands import placed_order, requested_cancel
from orders.endings import end_order, flag_order
from orders.errors import CommandMismatch, NotPaid, OutOfStock, PaymentDeclined, UnknownOrder
from orders.messages import CANCEL_ORDER, PLACE_ORDER, SAGA_NAME
from orders.payments import PaymentGateway, gateway_from_url
from sagas import (
    NeedsAttention,
    StepRejected,
    call_in_thread,
    cancel_on,
    forward_key,
    idempotency_key,
    on_finish,
    on_park,
    on_start,
)

Context = dict[str, Any]

on_finish(SAGA_NAME)(end_order)
on_park(SAGA_NAME)(flag_order)


def _cancel_reason(command: Context) -> str:
    """Return the reason in the order's row, whatever the command says."""
    try:
        return requested_cancel(command)
    except (UnknownOrder, CommandMismatch) as error:
        raise StepRejected(str(error)) from error


cancel_on(CANCEL_ORDER, saga=SAGA_NAME, idempotency_key="order_id", reason=_cancel_reason)

# A provider that is away for a minute costs no order: a saga that waits holds nothing up.
CHARGE_RETRIES = 8
REFUND_RETRIES = 12
# Seconds; a worker that freezes within a local step holds the stock's rows for as long.
LOCAL_TIMEOUT = 10.0


@on_start
@cache
def gateway() -> PaymentGateway:
    """Make the gateway of this process."""
    return gateway_from_url(settings.PAYMENT_GATEWAY_URL)


class OrderSaga(Saga):
    """Fulfil an order, or undo it."""

    saga_name = SAGA_NAME

    @trigger(source=PLACE_ORDER, idempotency_key="order_id")
    def on_place(self, event: Context) -> Context:
        """Start from the order's row, and refuse a command that matches no order.

        The amount in the context is only for people to read.
        """
        try:
            order = placed_order(event)
        except (UnknownOrder, CommandMismatch) as error:
            raise StepRejected(str(error)) from error
        return {"order_id": order.order_id, "amount": order.amount}

    @action("reserve_inventory", timeout_seconds=LOCAL_TIMEOUT)
    def reserve_inventory(self, ctx: Context) -> Context:
        """Reserve the items."""
        try:
            order = fulfilment.reserve_stock(order_id=ctx["order_id"])
        except (OutOfStock, UnknownOrder) as error:
            raise StepRejected(str(error)) from error
        # The amount of the row again: of the message's nothing is charged.
        return {"reservation_id": f"RES-{order.order_id}", "amount": order.amount}

    @compensate("reserve_inventory", timeout_seconds=LOCAL_TIMEOUT)
    def release_inventory(self, ctx: Context) -> None:
        """Give the reservations back."""
        fulfilment.release_stock(order_id=ctx["order_id"])

    @action("charge_payment", depends_on=["reserve_inventory"], max_retries=CHARGE_RETRIES)
    async def charge_payment(self, ctx: Context) -> Context:
        """Charge the amount in the order's row, never an amount from a message."""
        key = idempotency_key()
        try:
            transaction_id = await call_in_thread(
                gateway().charge, key=key, reference=ctx["order_id"], amount=ctx["amount"]
            )
        except PaymentDeclined as error:
            raise StepRejected(str(error)) from error
        return {"transaction_id": transaction_id, "charge_key": key}

    @compensate("charge_payment", max_retries=REFUND_RETRIES)
    async def refund_payment(self, ctx: Context) -> None:
        """Refund the charge, whether or not it happened."""
        amount = await call_in_thread(
            fulfilment.amount_charged, order_id=ctx["order_id"], charge_key=forward_key()
        )
        await call_in_thread(
            gateway().refund,
            key=idempotency_key(),
            charge_key=forward_key(),
            reference=ctx["order_id"],
            amount=amount,
        )
        await call_in_thread(
            fulfilment.record_refund,
            order_id=ctx["order_id"],
            charge_key=forward_key(),
            transaction_id=ctx.get("transaction_id", ""),
        )

    @action("ship_order", depends_on=["charge_payment"], pivot=True, timeout_seconds=LOCAL_TIMEOUT)
    def ship_order(self, ctx: Context) -> Context:
        """Enter the charge into our books, and ship; from here on nothing is undone."""
        # Without a key a person has settled the charge, and the payment's row is that person's.
        charge = None
        if key := ctx.get("charge_key"):
            charge = fulfilment.Charge(key, ctx["transaction_id"], ctx["amount"])
        try:
            shipment = fulfilment.ship(order_id=ctx["order_id"], charge=charge)
        except NotPaid as error:  # our books contradict the charge: for a person, not for an undo
            raise NeedsAttention(str(error)) from error
        return {"shipment_id": f"SHIP-{ctx['order_id']}", "tracking": shipment.tracking}
