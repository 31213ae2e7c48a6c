"""Imported by workers: how the outside behaves towards an order is in the order's id. And local
steps have less time, so that a worker that is stopped within one does not hold its locks long."""

from decimal import Decimal
from typing import Any

from orders import fulfilment, sagas
from orders.errors import PaymentUnavailable
from orders.payments.simulated import SimulatedGateway
from sagas import StepRejected
from sagas.models import SagaStep

LOST = "LOST"  # each charge happens, and its answer never arrives
AWAY_ONCE = "AWAY"  # the first attempt at the charge does not get through
UNDELIVERABLE = "UNDELIVERABLE"  # nobody will ship it
LOCAL_STEP_SECONDS = 2.0


class Outside(SimulatedGateway):
    def charge(self, *, key: str, reference: str, amount: Decimal) -> str:
        if reference.startswith(AWAY_ONCE) and not has_failed(key):
            raise PaymentUnavailable("no answer")
        answer = super().charge(key=key, reference=reference, amount=amount)
        if reference.startswith(LOST):
            raise PaymentUnavailable("the answer was lost")
        return answer


def has_failed(key: str) -> bool:
    """Whether the journal has a failed attempt: a worker that was killed before may try again."""
    return SagaStep.objects.filter(key=key, failures__gt=0).exists()


def ship(*, order_id: str, charge: fulfilment.Charge | None = None) -> Any:
    if order_id.startswith(UNDELIVERABLE):
        raise StepRejected("nobody delivers there")
    return deliver(order_id=order_id, charge=charge)


deliver = fulfilment.ship
fulfilment.ship = ship
sagas.gateway = Outside

for name, meta in {
    "reserve_inventory": "_saga_step_meta",
    "ship_order": "_saga_step_meta",
    "release_inventory": "_saga_compensation_meta",
}.items():
    getattr(getattr(sagas.OrderSaga, name), meta).timeout_seconds = LOCAL_STEP_SECONDS
