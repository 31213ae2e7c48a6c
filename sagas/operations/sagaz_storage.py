"""Show the journal to sagaz's own tools as a saga storage, for reading only.

Our statuses, and sagaz's names for them:

| a saga | |
|---|---|
| `pending` | PENDING |
| `running`; `waiting` on the way forward | EXECUTING |
| `compensating`, `cancelling`; `waiting` on the way back | COMPENSATING |
| `completed`, `rolled_back` | COMPLETED, ROLLED_BACK |
| `parked` on the way forward, or back | FORWARD_RECOVERY, FAILED |

| a step | |
|---|---|
| not begun | PENDING |
| `started`; `failed` or `unknown` where another attempt follows | EXECUTING |
| `done`, also where a person has skipped the compensation | COMPLETED |
| `done`, and its compensation has begun, or is done | COMPENSATING, COMPENSATED |
| `failed`, `unknown`, even if undone: see `compensated` | FAILED |
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from django.db import Error, connections
from django.db.models import Count, Q
from sagaz.core.storage.base import SagaStorage
from sagaz.core.types import SagaStatus as SagazStatus
from sagaz.core.types import SagaStepStatus as SagazStepStatus

from saga_runtime.text import one_line_error
from sagas.definition.registry import saga_type
from sagas.errors import JournalIsReadOnly, UnreadableValue
from sagas.journal import codec
from sagas.journal.cleaning import clean_sagas
from sagas.journal.final_context import final_context
from sagas.models import ACTIVE, PAUSED_OR_NOT, Saga, SagaStatus, SagaStep, StepKind, StepStatus

R = TypeVar("R")

_FORWARD = {
    SagaStatus.PENDING: SagazStatus.PENDING,
    SagaStatus.RUNNING: SagazStatus.EXECUTING,
    SagaStatus.WAITING: SagazStatus.EXECUTING,
    SagaStatus.COMPENSATING: SagazStatus.COMPENSATING,
    SagaStatus.CANCELLING: SagazStatus.COMPENSATING,
    SagaStatus.COMPLETED: SagazStatus.COMPLETED,
    SagaStatus.ROLLED_BACK: SagazStatus.ROLLED_BACK,
    SagaStatus.PARKED: SagazStatus.FORWARD_RECOVERY,
}
_BACK = _FORWARD | {
    SagaStatus.WAITING: SagazStatus.COMPENSATING,
    SagaStatus.PARKED: SagazStatus.FAILED,
}
_ENDED = {
    SagazStatus.COMPLETED: SagaStatus.COMPLETED,
    SagazStatus.ROLLED_BACK: SagaStatus.ROLLED_BACK,
}

State = dict[str, Any]


class DjangoSagaStorage(SagaStorage):
    """Show the journal to sagaz's tools, such as `to_mermaid_with_execution`."""

    async def load_saga_state(self, saga_id: str) -> State | None:
        """Return a saga with its steps and the context so far; None for an unknown id."""
        return await _in_thread(partial(_load, saga_id))

    async def list_sagas(
        self,
        status: SagazStatus | None = None,
        saga_name: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[State]:
        """Return summaries of sagas, the newest first.

        Args:
            status: only sagas in this status, by sagaz's names.
            saga_name: only sagas with this text in the name, in upper or lower case.
            limit: how many sagas at most.
            offset: how many sagas to pass over.
        """
        return await _in_thread(partial(_list, status, saga_name, limit, offset))

    async def get_saga_statistics(self) -> State:
        """Return the numbers of sagas: `total_sagas`, and `by_status`."""
        return await _in_thread(_statistics)

    async def health_check(self) -> State:
        """Return the `status`: `healthy`, or `unhealthy` with the `error`."""
        return await _in_thread(_health)

    async def cleanup_completed_sagas(
        self, older_than: datetime, statuses: list[SagazStatus] | None = None
    ) -> int:
        """Delete ended sagas with their steps, attempts and interventions.

        The inbox's rows stay, so a redelivered command starts no saga again. A new command with the
        same business key would.

        Args:
            older_than: only sagas that ended before this moment.
            statuses: COMPLETED, ROLLED_BACK or both; both where left out.

        Returns:
            The number of deleted sagas.

        Raises:
            JournalIsReadOnly: a status is neither COMPLETED nor ROLLED_BACK.
        """
        return await _in_thread(partial(_clean_up, older_than, statuses or list(_ENDED)))

    async def save_saga_state(self, saga_id: str, *_: Any, **__: Any) -> None:
        """Raise JournalIsReadOnly: only a worker writes the journal."""
        _refuse("save_saga_state", saga_id)

    async def update_step_state(self, saga_id: str, *_: Any, **__: Any) -> None:
        """Raise JournalIsReadOnly: only a worker writes the journal."""
        _refuse("update_step_state", saga_id)

    async def delete_saga_state(self, saga_id: str) -> bool:
        """Raise JournalIsReadOnly: ended sagas are deleted by `cleanup_completed_sagas`."""
        _refuse("delete_saga_state", saga_id)


def _refuse(what: str, saga_id: str) -> NoReturn:
    raise JournalIsReadOnly(
        f"{what}({saga_id}): the journal is written by the executor alone. Intervene by "
        "`manage.py sagas`; ended sagas are deleted by cleanup_completed_sagas"
    )


async def _in_thread(call: Callable[[], R]) -> R:
    return await asyncio.to_thread(_disconnecting, call)


def _disconnecting(call: Callable[[], R]) -> R:
    """Call a function, and close its connections: the thread belongs to asyncio's pool."""
    try:
        return call()
    finally:
        connections.close_all()


def _load(saga_id: str) -> State | None:
    try:
        key = UUID(saga_id)
    except ValueError:
        return None
    saga = Saga.objects.filter(id=key).prefetch_related("steps").first()
    if saga is None:
        return None
    rows = list(saga.steps.all())
    return {
        "saga_id": str(saga.id),
        "saga_name": saga.name,
        "status": _status(saga.status, saga.failure).value,
        "steps": _steps(saga, rows),
        "context": final_context(saga, rows, is_lenient=True),
        "error": saga.park_reason or saga.failure or None,
        "metadata": _metadata(saga),
        "created_at": saga.created_at.isoformat(),
        "updated_at": _updated_at(saga, rows).isoformat(),
    }


def _metadata(saga: Saga) -> dict[str, Any]:
    """Return values without a field in sagaz, in our own terms."""
    return {
        "version": saga.version,
        "key": saga.key,
        "status": saga.status,
        "paused": saga.paused,
        "past_pivot": saga.past_pivot,
        "cancel_reason": saga.cancel_reason,
        "correlation_id": saga.correlation_id,
        "traceparent": saga.traceparent,
        "deadline": _text(saga.deadline),
        "finished_at": _text(saga.finished_at),
    }


def _list(status: SagazStatus | None, name: str | None, limit: int, offset: int) -> list[State]:
    sagas = Saga.objects.order_by("-created_at", "id").prefetch_related("steps")
    if status is not None:
        sagas = sagas.filter(_has(status))
    if name:
        sagas = sagas.filter(name__icontains=name)
    return [_summary(saga) for saga in sagas[offset : offset + limit]]


def _summary(saga: Saga) -> State:
    rows = list(saga.steps.all())
    steps = _steps(saga, rows)
    completed = [step for step in steps if step["status"] == SagazStepStatus.COMPLETED.value]
    return {
        "saga_id": str(saga.id),
        "saga_name": saga.name,
        "status": _status(saga.status, saga.failure).value,
        "created_at": saga.created_at.isoformat(),
        "updated_at": _updated_at(saga, rows).isoformat(),
        "step_count": len(steps),
        "completed_steps": len(completed),
    }


def _statistics() -> State:
    by_status: dict[str, int] = {}
    groups = Saga.objects.values("status").annotate(
        all=Count("id"), back=Count("id", filter=~Q(failure=""))
    )
    for group in groups.order_by("status"):
        # A status means something else to sagaz where the saga is on its way back.
        for failure, count in (("", group["all"] - group["back"]), ("failed", group["back"])):
            if count:
                name = _status(group["status"], failure).value
                by_status[name] = by_status.get(name, 0) + count
    return {"total_sagas": sum(by_status.values()), "by_status": by_status}


def _health() -> State:
    state = {"storage_type": "django", "timestamp": datetime.now(UTC).isoformat()}
    try:
        Saga.objects.exists()
    except Error as error:
        return state | {"status": "unhealthy", "error": one_line_error(error)}
    return state | {"status": "healthy"}


def _clean_up(older_than: datetime, statuses: Iterable[SagazStatus]) -> int:
    others = [status.value for status in statuses if status not in _ENDED]
    if others:
        raise JournalIsReadOnly(f"a saga that is {others[0]} has not ended: it cannot be deleted")
    return clean_sagas(older_than=older_than, statuses=[_ENDED[status] for status in statuses])


def _has(status: SagazStatus) -> Q:
    forward = [ours for ours, theirs in _FORWARD.items() if theirs is status]
    back = [ours for ours, theirs in _BACK.items() if theirs is status]
    found = Q(status__in=forward, failure="") | (Q(status__in=back) & ~Q(failure=""))
    # The statuses once more, by themselves: only in this form the indexes can be used.
    return Q(PAUSED_OR_NOT, status__in={*forward, *back}) & found


def _status(status: str, failure: str) -> SagazStatus:
    """Return sagaz's status; an unknown status, of a newer version, counts as under way."""
    if status not in SagaStatus.values:
        return SagazStatus.COMPENSATING if failure else SagazStatus.EXECUTING
    return (_BACK if failure else _FORWARD)[SagaStatus(status)]


def _steps(saga: Saga, rows: Iterable[SagaStep]) -> list[State]:
    """Describe all steps, also steps that have not begun.

    The order is the order of the class; where the class is not registered, of the journal.
    """
    by_kind = {(row.step, row.kind): row for row in sorted(rows, key=lambda row: row.pk)}
    found = saga_type(saga.name, saga.version)
    levels = found.saga_class().get_execution_order() if found else []
    names = [name for level in levels for name in sorted(step.step_id for step in level)]
    return [
        _step(
            saga,
            name,
            by_kind.get((name, StepKind.FORWARD)),
            by_kind.get((name, StepKind.COMPENSATION)),
        )
        for name in dict.fromkeys([*names, *(step for step, _ in by_kind)])
    ]


def _step(saga: Saga, name: str, forward: SagaStep | None, back: SagaStep | None) -> State:
    is_undone = back is not None and back.status == StepStatus.DONE
    return {
        "name": name,
        "status": _step_status(saga, forward, back).value,
        "result": _result(forward) if forward and forward.result else None,
        "error": (forward and forward.error) or (back and back.error) or None,
        "executed_at": _text(forward.finished_at) if forward else None,
        "compensated": is_undone,
        "compensated_at": _text(back.finished_at) if back and is_undone else None,
        "retry_count": max(0, forward.attempt - 1) if forward else 0,
    }


def _result(row: SagaStep) -> Any:
    """Return the result; where it is damaged, the journal's text."""
    try:
        return codec.decode(row.result)
    except UnreadableValue:
        return row.result


def _step_status(saga: Saga, forward: SagaStep | None, back: SagaStep | None) -> SagazStepStatus:
    if forward is None:
        return SagazStepStatus.PENDING
    if forward.status == StepStatus.DONE:
        if back is None or back.status == StepStatus.SKIPPED:
            return SagazStepStatus.COMPLETED
        is_undone = back.status == StepStatus.DONE
        return SagazStepStatus.COMPENSATED if is_undone else SagazStepStatus.COMPENSATING
    # Once a saga is being undone, only a step that has started and not ended may still run.
    goes_on = not saga.failure or forward.status == StepStatus.STARTED
    if saga.status in ACTIVE and goes_on:
        return SagazStepStatus.EXECUTING
    return SagazStepStatus.FAILED


def _updated_at(saga: Saga, rows: Iterable[SagaStep]) -> datetime:
    """Return the latest moment in the journal of a saga."""
    moments = [saga.created_at, saga.finished_at]
    for row in rows:
        moments += [row.started_at, row.finished_at]
    return max(moment for moment in moments if moment is not None)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
