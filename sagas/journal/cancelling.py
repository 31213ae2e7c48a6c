"""Ask for cancels: a command or a person does, and the worker applies them at the next step.

A cancel and the start of the pivot write the same row, so either comes first: a saga has a cancel
or a begun pivot, never both.
"""

from uuid import UUID

from django.db import transaction

from saga_runtime.text import bounded
from sagas.errors import CancelRefused, UnknownSaga
from sagas.journal import sql
from sagas.journal.manual_changes import record_intervention
from sagas.models import Saga, SagaStatus


def request_cancel(saga_id: UUID, *, who: str, reason: str) -> Saga:
    """Ask for a saga's cancel: the step under way may finish, then the steps done are undone.

    Nothing changes where a cancel waits already, or where the saga is being undone.

    Args:
        saga_id: the saga.
        who: who asks; for the record of the intervention.
        reason: why, in a few words.

    Returns:
        The saga's row, as it is now.

    Raises:
        UnknownSaga: there is no such saga.
        CancelRefused: the saga has ended, or cannot be undone any more.
    """
    with transaction.atomic():
        # The lock that each fence takes: the cancel comes before the pivot, or sees the pivot.
        saga = Saga.objects.select_for_update().filter(id=saga_id).first()
        _check(saga_id, saga)
        assert saga is not None  # noqa: S101 - for the types
        if saga.failure or (saga.cancel_reason and saga.status != SagaStatus.PARKED):
            return saga
        saga.cancel_reason = bounded(reason) or "cancelled"
        # Its worker has left it: the cancel sets it going, and its lost workers count anew.
        if saga.status == SagaStatus.PARKED:
            saga.status, saga.park_reason, saga.takeovers = SagaStatus.RUNNING, "", 0
            saga.worker = ""
        # Without a worker, the saga need not wait out its pause; with one, that is the lease's end.
        if not saga.worker:
            saga.next_run_at = sql.now()
        saga.save(
            update_fields=[
                "cancel_reason", "next_run_at", "status", "park_reason", "takeovers", "worker",
            ]
        )  # fmt: skip
        saga.refresh_from_db(fields=["next_run_at"])
        record_intervention(saga, "cancel", who=who, why=saga.cancel_reason)
    return saga


def _check(saga_id: UUID, saga: Saga | None) -> None:
    if saga is None:
        raise UnknownSaga(f"there is no saga {saga_id}")
    if saga.status in (SagaStatus.COMPLETED, SagaStatus.ROLLED_BACK):
        raise CancelRefused(f"{saga} is {saga.status} already")
    if saga.past_pivot:
        raise CancelRefused(f"{saga} is past the point of no return")
