"""A charge is in our books with the shipment, and wherever there will be no shipment."""

from decimal import Decimal
from uuid import UUID

import pytest
from django.db import transaction
from django.utils import timezone

from orders import fulfilment
from orders.endings import end_order, flag_order
from orders.fulfilment import Charge
from orders.models import Order, OrderStatus, Payment, PaymentStatus
from orders.services import Item, place_order, receive_stock
from sagas import Ending, SagaOutcome
from sagas.journal.records import Claimed, StepRecord
from sagas.models import Saga, SagaStep, StepKind, StepStatus
from tests.unit.sagas.saga_running import begin, run_to_end
from tests.unit.sagas.scripted_sagas import claimed_by

pytestmark = pytest.mark.django_db(transaction=True)

CHARGED = {"charge_key": "K", "transaction_id": "TXN-7"}


@pytest.fixture
def order() -> Order:
    receive_stock(product_id="BOOK", name="A book", quantity=9)
    items = [Item("BOOK", "A book", 2)]
    return place_order(order_id="ORD-1", user_id="U", items=items, amount=Decimal("10.50")).order


def outcome(order: Order, ending: Ending, **context: object) -> SagaOutcome:
    return SagaOutcome(
        saga_id=order.saga_id,
        name="order",
        key=order.order_id,
        ending=ending,
        context=context,
        reason="" if ending is Ending.COMPLETED else "why",
    )


def books() -> list[tuple[str, str, Decimal, str]]:
    rows = Payment.objects.values_list("key", "transaction_id", "amount", "status")
    return list(rows)


ENTERED = [("K", "TXN-7", Decimal("10.50"), "charged")]


def test_where_the_saga_parks(order: Order) -> None:
    flag_order(outcome(order, Ending.PARKED, **CHARGED))
    assert books() == ENTERED
    assert Order.objects.get().status == OrderStatus.ATTENTION
    flag_order(outcome(order, Ending.PARKED, **CHARGED))
    assert books() == ENTERED


def test_not_where_nothing_was_charged(order: Order) -> None:
    flag_order(outcome(order, Ending.PARKED))
    assert books() == []


def test_where_a_person_has_settled_the_shipment(order: Order) -> None:
    with transaction.atomic():
        end_order(outcome(order, Ending.COMPLETED, **CHARGED))
    assert books() == ENTERED


def test_a_payment_that_a_person_has_entered_stays(order: Order) -> None:
    """Under a key of the person's own: the order has its one payment."""
    fulfilment.record_charge(
        order_id=order.order_id, charge=Charge("by hand", "BANK-1", order.amount)
    )
    flag_order(outcome(order, Ending.PARKED, **CHARGED))
    assert [row[:2] for row in books()] == [("by hand", "BANK-1")]
    assert Order.objects.get().status == OrderStatus.ATTENTION


def test_a_refund_stays(order: Order) -> None:
    fulfilment.record_refund(order_id=order.order_id, charge_key="K", transaction_id="TXN-7")
    flag_order(outcome(order, Ending.PARKED, **CHARGED))
    assert [row[3] for row in books()] == [PaymentStatus.REFUNDED]


def charged_saga(order: Order) -> UUID:
    """A saga whose worker has charged the order, and has got no further."""
    saga = begin("order", key=order.order_id, order_id=order.order_id, amount=order.amount)
    for step, result in (("reserve_inventory", "{}"), ("charge_payment", CHARGED_JSON)):
        SagaStep.objects.create(
            saga_id=saga,
            step=step,
            kind=StepKind.FORWARD,
            status=StepStatus.DONE,
            key=f"{saga}:{step}:F",
            result=result,
            finished_at=timezone.now(),
        )
    return saga


CHARGED_JSON = '{"charge_key": "K", "transaction_id": "TXN-7"}'


def test_where_a_saga_is_parked_for_it_has_cost_too_many_workers(order: Order) -> None:
    """It is not run again; what it has done is in its journal."""
    saga = charged_saga(order)
    Saga.objects.filter(id=saga).update(takeovers=11, epoch=4)
    assert run_to_end(saga).status == "parked"
    assert books() == ENTERED


def test_the_context_so_far_is_that_of_the_steps_done_in_their_order(order: Order) -> None:
    saga = charged_saga(order)
    Saga.objects.filter(id=saga).update(epoch=4)
    claimed: Claimed = claimed_by("w")
    assert claimed.id == saga
    assert claimed.context_so_far == {"order_id": "ORD-1", "amount": order.amount, **CHARGED}
    later = max(step.finished_at for step in claimed.steps.values() if step.finished_at)
    claimed.steps["ship_order", "F"] = StepRecord(
        "done", 1, 0, {"transaction_id": "newer"}, "", timezone.now()
    )
    claimed.steps["other", "F"] = StepRecord("failed", 1, 1, {"charge_key": "no"}, "", later)
    claimed.steps["charge_payment", "C"] = StepRecord("done", 1, 0, {"x": 1}, "", later)
    assert claimed.context_so_far["transaction_id"] == "newer"
    assert claimed.context_so_far["charge_key"] == "K"
    assert "x" not in claimed.context_so_far
