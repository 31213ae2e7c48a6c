"""Write a person's changes to a saga, with who, why and when in the same transaction."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from saga_runtime.text import storable
from sagas.definition.identity import step_key
from sagas.journal import codec, sql, statements
from sagas.models import Intervention, Saga, SagaStatus, SagaStep, StepKind, StepStatus

_OPEN = (StepStatus.STARTED, StepStatus.FAILED, StepStatus.UNKNOWN)
_LONGEST = 255


@contextmanager
def recorded(
    saga_id: UUID, action: str, *, who: str, why: str, step: str = "", kind: str = ""
) -> Iterator[Saga]:
    """Lock a saga's row, let the block change the saga, and record the intervention.

    Args:
        saga_id: the saga.
        action: the kind of intervention, as `retry`.
        who: the person, stored up to 255 characters.
        why: the reason.
        step: the settled step, if any.
        kind: the step's `StepKind`.

    Yields:
        The saga's row, locked until the block's end.

    Raises:
        Saga.DoesNotExist: no saga has this id.
    """
    with transaction.atomic():
        # The fence of a worker that still runs the saga takes the same lock.
        saga = Saga.objects.select_for_update().get(id=saga_id)
        yield saga
        record_intervention(saga, action, who=who, why=storable(why), step=step, kind=kind)


def record_intervention(
    saga: Saga, action: str, *, who: str, why: str, step: str = "", kind: str = ""
) -> None:
    """Insert an intervention's row: who, why, and the action."""
    Intervention.objects.create(
        saga=saga, action=action, step=step, kind=kind, who=storable(who)[:_LONGEST], why=why
    )


def renew_retries(saga: Saga) -> None:
    """Renew the retries of each open step of a saga."""
    saga.steps.filter(status__in=_OPEN).update(failures=0)


def settle_step(
    saga: Saga, step: str, kind: StepKind, status: StepStatus, *, resolved_by: str
) -> StepStatus | None:
    """Settle a step as done or skipped, on a person's word; the result is empty.

    Args:
        saga: the saga, whose row is locked.
        step: the step's name.
        kind: forward or compensation.
        status: DONE or SKIPPED.
        resolved_by: the person and the reason; stored up to 255 characters.

    Returns:
        None where the step is settled now; otherwise the status of a step settled before.
    """
    values = {
        "status": status,
        "result": codec.encode({}),
        "resolved_by": storable(resolved_by)[:_LONGEST],
        "finished_at": timezone.now(),
    }
    row, is_new = SagaStep.objects.get_or_create(
        saga=saga,
        step=step,
        kind=kind,
        defaults=values | {"attempt": 0, "key": step_key(saga.id, step, kind)},
    )
    if is_new:
        return None
    if row.status in (StepStatus.DONE, StepStatus.SKIPPED):
        return StepStatus(row.status)
    # The last attempt, which the person's word is about to replace.
    sql.run(statements.keep_former_from("", "former.id = %s"), [row.pk])
    SagaStep.objects.filter(pk=row.pk).update(**values)
    return None


def begin_pivot(saga: Saga) -> None:
    """Note a pivot settled by a person: from now on the saga cannot be undone."""
    Saga.objects.filter(id=saga.id).update(past_pivot=True)


def go_on(saga: Saga) -> None:
    """Let a parked saga be claimed again, forwards or backwards, without a deadline."""
    # A deadline that has passed would decide against the saga, or park it, at once again.
    status = SagaStatus.COMPENSATING if saga.failure else SagaStatus.RUNNING
    Saga.objects.filter(id=saga.id).update(
        status=status, park_reason="", takeovers=0, deadline=None, worker="", next_run_at=sql.now()
    )


def set_paused(ids: Collection[UUID], *, paused: bool) -> None:
    """Keep sagas from being claimed, or let them be claimed again."""
    Saga.objects.filter(id__in=ids).update(paused=paused)
