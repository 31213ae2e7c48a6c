"""What the executor writes, fenced: it commits only under the epoch that was claimed.

The fence is taken last before each commit and locks the saga's row against a new claim, so of two
workers that both believe a saga is theirs only one can write.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from sagas import codec
from sagas.errors import LeaseLost
from sagas.hooks import Ending, SagaOutcome, call_hooks
from sagas.identity import step_key
from sagas.models import ACTIVE, Saga, SagaStatus, SagaStep, StepStatus


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step as the journal has it."""

    status: str
    attempt: int
    result: Any
    error: str


@dataclass(slots=True)
class Claimed:
    """A saga that this worker may run while its lease lasts, and what is already done of it."""

    id: UUID
    name: str
    key: str
    version: int
    definition_hash: str
    epoch: int
    context: dict[str, Any]
    failure: str
    correlation_id: str
    traceparent: str
    steps: dict[tuple[str, str], StepRecord] = field(default_factory=dict)


def claim(*, worker: str, limit: int, lease: timedelta) -> list[Claimed]:
    """Take up to `limit` sagas that wait for a worker, or whose worker's lease ran out."""
    with transaction.atomic():
        now = _now()
        rows = list(
            Saga.objects.claimable(now)
            .select_for_update(skip_locked=connection.features.has_select_for_update_skip_locked)
            .order_by("next_run_at")[:limit]
        )
        for row in rows:
            row.epoch += 1
            row.worker = worker
            row.next_run_at = now + lease
            if row.status == SagaStatus.PENDING:
                row.status = SagaStatus.RUNNING
        Saga.objects.bulk_update(rows, ["epoch", "worker", "next_run_at", "status"])
    steps = _steps_of([row.id for row in rows if row.epoch > 1])
    return [_claimed(row, steps.get(row.id, {})) for row in rows]


def renew(*, worker: str, ids: Collection[UUID], lease: timedelta) -> None:
    """Extend the leases of the sagas that this worker still holds."""
    Saga.objects.filter(id__in=ids, worker=worker, status__in=ACTIVE).update(
        next_run_at=_now() + lease
    )


def release(*, worker: str) -> None:
    """Give up what this worker holds, so that another may take it at once."""
    Saga.objects.filter(worker=worker, status__in=ACTIVE).update(next_run_at=_now(), worker="")


def release_all() -> int:
    """Take every lease away, where nobody else can be alive; returns how many sagas were held."""
    now = timezone.now()
    held = Saga.objects.filter(status__in=ACTIVE, next_run_at__gt=now).exclude(worker="")
    return held.update(next_run_at=now, worker="")


def started(saga: Claimed, step: str, kind: str, *, attempt: int) -> None:
    """An external call is about to be made."""
    with transaction.atomic():
        _write(saga, step, kind, StepStatus.STARTED, attempt=attempt)
        fence(saga)


def done(saga: Claimed, step: str, kind: str, *, attempt: int, result: Any) -> None:
    """An external call has been answered."""
    with transaction.atomic():
        _write(saga, step, kind, StepStatus.DONE, attempt=attempt, result=result)
        fence(saga)


def done_locally(
    saga: Claimed, step: str, kind: str, *, attempt: int, work: Callable[[], Any]
) -> Any:
    """Do a local step: its writes, its journal row and the fence commit together. Returns its
    result as the journal keeps it."""
    with transaction.atomic():
        result = codec.encode(work())
        _write(saga, step, kind, StepStatus.DONE, attempt=attempt, encoded=result)
        fence(saga)
    return codec.decode(result)


def failed(
    saga: Claimed,
    step: str,
    kind: str,
    *,
    attempt: int,
    error: str,
    unknown: bool = False,
    decides: bool = False,
) -> None:
    """An attempt has failed. `unknown`: it may have had its effect all the same. `decides`: the
    saga fails by it, which is written before anything is undone."""
    status = StepStatus.UNKNOWN if unknown else StepStatus.FAILED
    with transaction.atomic():
        _write(saga, step, kind, status, attempt=attempt, error=error)
        if decides:
            Saga.objects.filter(id=saga.id, failure="").update(
                status=SagaStatus.COMPENSATING, failure=codec.printable(error)
            )
        fence(saga)


def step_record(saga: Claimed, step: str, kind: str) -> StepRecord | None:
    """The step as the journal has it now."""
    row = SagaStep.objects.filter(saga_id=saga.id, step=step, kind=kind).first()
    return _record(row) if row else None


def finish(saga: Claimed, ending: Ending, context: dict[str, Any], reason: str) -> None:
    """The saga's last transaction: its outcome and what its app makes of it. A second time, after a
    commit whose answer was lost, it changes nothing."""
    outcome = SagaOutcome(
        saga_id=saga.id,
        name=saga.name,
        key=saga.key,
        ending=ending,
        context=context,
        reason=reason,
    )
    is_parked = ending is Ending.PARKED
    with transaction.atomic():
        fence(saga)
        finished = Saga.objects.filter(id=saga.id, status__in=ACTIVE).update(
            status=SagaStatus(ending.value),
            park_reason=codec.printable(reason) if is_parked else "",
            finished_at=None if is_parked else timezone.now(),
        )
        if finished:
            call_hooks(outcome)


def fence(saga: Claimed) -> None:
    """Hold the saga's row until the commit.

    Raises:
        LeaseLost: another worker has claimed it since.
    """
    share = " FOR SHARE" if connection.vendor == "postgresql" else ""
    pk = Saga._meta.pk.get_db_prep_value(saga.id, connection)  # noqa: SLF001 - Django's API
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM sagas_saga WHERE id = %s AND epoch = %s{share}",  # noqa: S608 - constants
            [pk, saga.epoch],
        )
        if cursor.fetchone() is None:
            raise LeaseLost(f"{saga.name} {saga.key} was taken over by another worker")


def _now() -> datetime:
    """The database's clock, by which all workers measure their leases."""
    if connection.vendor != "postgresql":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    return cast("datetime", now)


def _write(
    saga: Claimed,
    step: str,
    kind: str,
    status: StepStatus,
    *,
    attempt: int,
    result: Any = None,
    encoded: str = "",
    error: str = "",
) -> None:
    now = timezone.now()
    values: dict[str, Any] = {"status": status, "attempt": attempt, "error": codec.printable(error)}
    if status is StepStatus.STARTED:
        values["started_at"] = now
    values["finished_at"] = None if status is StepStatus.STARTED else now
    if status is StepStatus.DONE:
        values["result"] = encoded or codec.encode(result)
    row = SagaStep(
        saga_id=saga.id, step=step, kind=kind, key=step_key(saga.id, step, kind), **values
    )
    SagaStep.objects.bulk_create(  # one statement: INSERT … ON CONFLICT … UPDATE
        [row],
        update_conflicts=True,
        unique_fields=["saga", "step", "kind"],
        update_fields=list(values),
    )


def _steps_of(ids: Collection[UUID]) -> dict[UUID, dict[tuple[str, str], StepRecord]]:
    steps: dict[UUID, dict[tuple[str, str], StepRecord]] = {}
    for row in SagaStep.objects.filter(saga_id__in=ids):
        steps.setdefault(row.saga_id, {})[row.step, row.kind] = _record(row)
    return steps


def _record(row: SagaStep) -> StepRecord:
    result = codec.decode(row.result) if row.result else None
    return StepRecord(row.status, row.attempt, result, row.error)


def _claimed(row: Saga, steps: dict[tuple[str, str], StepRecord]) -> Claimed:
    return Claimed(
        id=row.id,
        name=row.name,
        key=row.key,
        version=row.version,
        definition_hash=row.definition_hash,
        epoch=row.epoch,
        context=codec.decode(row.input),
        failure=row.failure,
        correlation_id=row.correlation_id,
        traceparent=row.traceparent,
        steps=steps,
    )
