"""End an order together with its saga, in the saga's last transaction."""

from typing import assert_never

from django.db import router

from orders.fulfilment import Charge, record_charge
from orders.messages import EVENTS, ORDER_CANCELLED, ORDER_FULFILLED, ORDER_REJECTED
from orders.models import BY_ORDER_ID, Order, OrderStatus
from outbox import enqueue
from saga_runtime.logs import get_logger
from saga_runtime.round_trips import this_moment
from sagas import Ending, SagaOutcome

logger = get_logger(__name__)


def end_order(outcome: SagaOutcome) -> None:
    """Give the order its last status, and enqueue the event for the world."""
    match outcome.ending:
        case Ending.COMPLETED:
            status, event = OrderStatus.FULFILLED, ORDER_FULFILLED
        case Ending.ROLLED_BACK if outcome.cancelled:
            status, event = OrderStatus.CANCELLED, ORDER_CANCELLED
        case Ending.ROLLED_BACK:
            status, event = OrderStatus.REJECTED, ORDER_REJECTED
        case Ending.PARKED:
            return
        case _:
            assert_never(outcome.ending)
    order = _set_status(outcome, status)
    if order is None:
        return
    if outcome.ending is Ending.COMPLETED and "shipment_id" not in outcome.context:
        _record_charge(order, outcome)  # a person has settled the shipment
    payload = {
        "order_id": order.order_id,
        "user_id": order.user_id,
        "amount": str(order.amount),
        "status": order.status,
        "reason": order.reason,
        "saga_id": str(order.saga_id),
        "tracking": outcome.context.get("tracking"),
    }
    enqueue(topic=EVENTS, key=order.order_id, type=event, payload=payload)


def flag_order(outcome: SagaOutcome) -> None:
    """Mark the order of a parked saga: a person must look, and find a charge in our books."""
    order = _set_status(outcome, OrderStatus.ATTENTION)
    if order is not None:
        _record_charge(order, outcome)


def _record_charge(order: Order, outcome: SagaOutcome) -> None:
    """Enter the charge, if there was one, which the shipment would have entered."""
    if key := outcome.context.get("charge_key"):
        charge = Charge(key, outcome.context["transaction_id"], order.amount)
        record_charge(order_id=order.order_id, charge=charge)


def _set_status(outcome: SagaOutcome, status: OrderStatus) -> Order | None:
    """Set the order's status and reason; None where the command named no order of ours."""
    columns = {"status": status.value, "reason": outcome.reason, "updated_at": this_moment()}
    order = BY_ORDER_ID.update(outcome.key, columns, using=router.db_for_write(Order))
    if order is None:
        logger.error(
            "saga %s ended for an order that there is not: %s", outcome.saga_id, outcome.key
        )
    return order
