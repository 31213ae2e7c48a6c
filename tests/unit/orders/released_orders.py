"""The order saga's functions as the first release had them, for tests in which some of the workers
are still of that release: its definition is the same, so that old and new ones share sagas."""

from collections.abc import Set
from decimal import Decimal
from types import MethodType
from typing import Any

import pytest

from orders import fulfilment, sagas
from orders.errors import OutOfStock, PaymentDeclined, UnknownOrder
from orders.messages import SAGA_NAME
from sagas import StepRejected, call_in_thread, forward_key, idempotency_key
from sagas.definition.registry import saga_type

Context = dict[str, Any]


def on_place(_: object, event: Context) -> Context:
    return {"order_id": event["order_id"], "amount": Decimal(event["amount"])}


def reserve_inventory(_: object, ctx: Context) -> Context:
    try:
        fulfilment.reserve_stock(order_id=ctx["order_id"])
    except (OutOfStock, UnknownOrder) as error:
        raise StepRejected(str(error)) from error
    return {"reservation_id": f"RES-{ctx['order_id']}"}


async def charge_payment(_: object, ctx: Context) -> Context:
    key, order_id, amount = idempotency_key(), ctx["order_id"], ctx["amount"]
    try:
        transaction_id = await call_in_thread(
            sagas.gateway().charge, key=key, reference=order_id, amount=amount
        )
    except PaymentDeclined as error:
        raise StepRejected(str(error)) from error
    await call_in_thread(
        fulfilment.record_charge,
        order_id=order_id,
        key=key,
        transaction_id=transaction_id,
        amount=amount,
    )
    return {"transaction_id": transaction_id}


async def refund_payment(_: object, ctx: Context) -> None:
    await call_in_thread(
        sagas.gateway().refund,
        key=idempotency_key(),
        charge_key=forward_key(),
        reference=ctx["order_id"],
        amount=ctx["amount"],
    )
    await call_in_thread(
        fulfilment.record_refund, order_id=ctx["order_id"], charge_key=forward_key()
    )


def bring_back(names: Set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put these functions in the place of the new ones of the same name."""
    if "on_place" in names:
        monkeypatch.setattr(sagas.OrderSaga, "on_place", on_place)
    found = saga_type(SAGA_NAME)
    assert found is not None
    model = found.pattern._model  # each run's instance is a copy of it
    for step in model.get_steps():
        if step.step_id in names & {"reserve_inventory", "charge_payment"}:
            monkeypatch.setattr(step, "forward_fn", MethodType(globals()[step.step_id], model))
        if step.step_id == "charge_payment" and "refund_payment" in names:
            monkeypatch.setattr(step, "compensation_fn", MethodType(refund_payment, model))
