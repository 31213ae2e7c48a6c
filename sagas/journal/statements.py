"""The statements that write a step's row and its attempts, and those that fence them."""

from collections.abc import Collection, Sequence
from typing import Any

from django.utils import timezone

from saga_runtime.text import bounded
from sagas.definition.identity import step_key
from sagas.journal import sql
from sagas.journal.entries import StepEntry
from sagas.journal.records import Claimed
from sagas.journal.state_machine import STEP_TRANSITIONS, quoted
from sagas.models import StepStatus

STEP_COLUMNS = {
    "saga_id": "uuid", "step": "text", "kind": "text", "status": "text", "attempt": "int",
    "failures": "int", "key": "text", "result": "text", "error": "text", "resolved_by": "text",
    "started_at": "timestamptz", "finished_at": "timestamptz",
}  # fmt: skip
_UPDATED = ("status", "attempt", "failures", "result", "error", "started_at", "finished_at")
_FINAL = quoted(status for status, after in STEP_TRANSITIONS.items() if not after)
_SETS = ", ".join(f"{column} = excluded.{column}" for column in _UPDATED)
ATTEMPT_COLUMNS = {
    "saga_id": "uuid", "step": "text", "kind": "text", "attempt": "int", "status": "text",
    "error": "text", "traceback": "text", "worker": "text", "started_at": "timestamptz",
    "at": "timestamptz",
}  # fmt: skip


def step_values(saga: Claimed, step: StepEntry, *, result: str = "") -> list[Any]:
    return [
        sql.id_text(saga.id),
        step.step,
        step.kind,
        step.status.value,
        step.attempt,
        step.failures,
        step_key(saga.id, step.step, step.kind),
        result or step.result,
        bounded(step.error),
        "",
        sql.text_of(step.started_at),
        finished_at(step),
    ]


def finished_at(step: StepEntry) -> str | None:
    """When the attempt ended, as this database takes it; None where it has only begun."""
    if step.status is StepStatus.STARTED:
        return None
    return sql.text_of(step.finished_at or timezone.now())


def upsert(rows: Sequence[list[Any]]) -> sql.Statement:
    given, params = sql.rows_from(STEP_COLUMNS, rows)
    return upsert_from(given), params


def upsert_from(given: str) -> str:
    """Insert or update the steps that this query gives; returns those that were written. A step's
    row is not changed by an attempt before its own, and what an attempt has come to stays."""
    return (
        f"INSERT INTO sagas_step ({', '.join(STEP_COLUMNS)}) {given}"
        f" ON CONFLICT (saga_id, step, kind) DO UPDATE SET {_SETS}"
        # The next attempt, unless the step is settled; or this attempt's answer, perhaps repeated.
        f" WHERE (sagas_step.attempt < excluded.attempt AND sagas_step.status NOT IN ({_FINAL}))"
        " OR (sagas_step.attempt = excluded.attempt"
        f" AND sagas_step.status IN ('{StepStatus.STARTED.value}', excluded.status))"
        " RETURNING saga_id, step, kind"
    )


def attempts(pairs: Sequence[tuple[Claimed, StepEntry]]) -> sql.Statement:
    now = sql.text_of(timezone.now())
    rows = [_attempt_values(saga, step, now) for saga, step in pairs]
    given, params = sql.rows_from(ATTEMPT_COLUMNS, rows)
    text = (
        f"INSERT INTO sagas_attempt ({', '.join(ATTEMPT_COLUMNS)}) {given}"
        " ON CONFLICT DO NOTHING"  # written again, after a commit whose answer was lost
    )
    return text, params


def _attempt_values(saga: Claimed, step: StepEntry, now: str) -> list[Any]:
    return [
        sql.id_text(saga.id),
        step.step,
        step.kind,
        step.attempt,
        step.status.value,
        bounded(step.error),
        step.traceback,
        saga.worker,
        sql.text_of(step.started_at),
        now,
    ]


def progress(sagas: Collection[Claimed]) -> list[sql.Statement]:
    """An attempt has ended: the workers that the saga lost before are forgiven."""
    ids = [saga.id for saga in sagas if saga.takeovers]
    if not ids:
        return []
    among, keys = sql.among(ids)
    return [(f"UPDATE sagas_saga SET takeovers = 0 WHERE {among}", keys)]  # noqa: S608 - constants


def fence(saga: Claimed, step: StepEntry | None = None) -> sql.Statement:
    """Locks the saga's row until the commit; gives none where the saga is no longer this worker's,
    or the step's current attempt is another."""
    share = " FOR SHARE" if sql.is_postgresql() else ""
    condition, params = _held(saga, step)
    return f"SELECT cancel_reason FROM sagas_saga WHERE {condition}{share}", params  # noqa: S608


def pivot_fence(saga: Claimed, step: StepEntry) -> sql.Statement:
    """The pivot and a cancel write the same row: one comes first, and the other sees it."""
    condition, params = _held(saga, step)
    text = (
        f"UPDATE sagas_saga SET past_pivot = %s WHERE {condition} AND cancel_reason = ''"  # noqa: S608
        " RETURNING cancel_reason"
    )
    return text, [True, *params]


def _held(saga: Claimed, step: StepEntry | None) -> sql.Statement:
    condition, params = "id = %s AND epoch = %s", [sql.id_text(saga.id), saga.epoch]
    if step is None:
        return condition, params
    current = "saga_id = %s AND step = %s AND kind = %s AND attempt = %s AND status = %s"
    return (
        f"{condition} AND EXISTS (SELECT 1 FROM sagas_step WHERE {current})",  # noqa: S608
        [*params, params[0], step.step, step.kind, step.attempt, step.status.value],
    )
