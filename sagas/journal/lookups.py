"""Look up single values for a run in the course of the run."""

from django.db import transaction

from sagas.journal.loading import record_of
from sagas.journal.records import Claimed, StepRecord
from sagas.models import Saga, SagaStep


def step_record(saga: Claimed, step: str, kind: str) -> StepRecord | None:
    """Read a step's present row, after any commit still under way.

    Raises:
        UnreadableValue: the step's result is damaged.
    """
    # A commit whose answer was lost may not be through yet. It holds the saga's row: wait for it.
    with transaction.atomic():
        Saga.objects.select_for_update().filter(id=saga.id).values_list("id").first()
    row = SagaStep.objects.filter(saga_id=saga.id, step=step, kind=kind).first()
    return record_of(row) if row else None


def cancel_reason(saga: Claimed) -> str:
    """Return why the saga's cancel was asked for; empty where nobody has asked."""
    reason = Saga.objects.filter(id=saga.id).values_list("cancel_reason", flat=True).first()
    return reason or ""
