"""Build the statements for a step's row and attempts, and the fences of a saga.

The columns of both tables stand here once, for `one_statement` too.
"""

from collections.abc import Collection, Mapping, Sequence
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
"""The columns of sagas_step written by an attempt, with their types in PostgreSQL."""

ATTEMPT_COLUMNS = {
    "saga_id": "uuid", "step": "text", "kind": "text", "attempt": "int", "status": "text",
    "error": "text", "traceback": "text", "worker": "text", "started_at": "timestamptz",
    "at": "timestamptz",
}  # fmt: skip
"""The columns of sagas_attempt, with their types in PostgreSQL."""

StepRow = Mapping[str, Any]
"""A JSON value for each of STEP_COLUMNS and of ATTEMPT_COLUMNS."""

_UPDATED = ("status", "attempt", "failures", "result", "error", "started_at", "finished_at")
_FINAL = quoted(status for status, after in STEP_TRANSITIONS.items() if not after)
_SETS = ", ".join(f"{column} = excluded.{column}" for column in _UPDATED)


def step_row(saga: Claimed, step: StepEntry, *, at: str) -> dict[str, Any]:
    """Build the columns of a step's row, and of the attempt's row.

    Args:
        saga: the saga, as claimed by the worker.
        step: the attempt.
        at: the present moment, written by `sql.text_of`.
    """
    return {
        "saga_id": sql.id_text(saga.id),
        "step": step.step,
        "kind": step.kind,
        "status": step.status.value,
        "attempt": step.attempt,
        "failures": step.failures,
        "key": step_key(saga.id, step.step, step.kind),
        "result": step.result,
        "error": bounded(step.error),
        "resolved_by": "",
        "started_at": sql.text_of(step.started_at),
        "finished_at": _finished_at(step),
        "traceback": step.traceback,
        "worker": saga.worker,
        "at": at,
    }


def _finished_at(step: StepEntry) -> str | None:
    """Return the moment of the attempt's end; None while the attempt is under way."""
    if step.status is StepStatus.STARTED:
        return None
    return sql.text_of(step.finished_at or timezone.now())


def upsert_steps(rows: Sequence[StepRow]) -> sql.Statement:
    """Build the statement to insert or update rows of sagas_step: see `upsert_from`."""
    given, params = sql.rows_from(STEP_COLUMNS, rows)
    return upsert_from(given), params


def upsert_from(given: str) -> str:
    """Build the SQL to insert or update the steps of a query.

    The SQL returns saga_id, step and kind of each written step. A step with a later attempt, and a
    settled step, stay unchanged.

    Args:
        given: a query of STEP_COLUMNS.
    """
    return (
        f"INSERT INTO sagas_step ({', '.join(STEP_COLUMNS)}) {given}"
        f" ON CONFLICT (saga_id, step, kind) DO UPDATE SET {_SETS}"
        # The next attempt, unless the step is settled; or this attempt's answer, perhaps repeated.
        f" WHERE (sagas_step.attempt < excluded.attempt AND sagas_step.status NOT IN ({_FINAL}))"
        " OR (sagas_step.attempt = excluded.attempt"
        f" AND sagas_step.status IN ('{StepStatus.STARTED.value}', excluded.status))"
        " RETURNING saga_id, step, kind"
    )


def insert_attempts(rows: Sequence[StepRow]) -> sql.Statement:
    """Build the statement to insert rows of sagas_attempt; existing rows stay."""
    given, params = sql.rows_from(ATTEMPT_COLUMNS, rows)
    text = (
        f"INSERT INTO sagas_attempt ({', '.join(ATTEMPT_COLUMNS)}) {given}"
        " ON CONFLICT DO NOTHING"  # written again, after a commit whose answer was lost
    )
    return text, params


def forget_takeovers(sagas: Collection[Claimed]) -> list[sql.Statement]:
    """Build the statement to set the sagas' count of lost workers to 0: an attempt has ended.

    Returns:
        A single statement; none where no saga has lost a worker, to spare most commits the update.
    """
    ids = [saga.id for saga in sagas if saga.takeovers]
    if not ids:
        return []
    among, keys = sql.among(ids)
    return [(f"UPDATE sagas_saga SET takeovers = 0 WHERE {among}", keys)]  # noqa: S608 - constants


def fence(saga: Claimed) -> sql.Statement:
    """Build the statement to lock the saga's row until the commit, and return cancel_reason.

    The statement returns no row where another worker has claimed the saga.
    """
    # A share lock keeps claims and cancels out, but not other steps of the same saga.
    share = " FOR SHARE" if sql.is_postgresql() else ""
    return f"SELECT cancel_reason FROM sagas_saga WHERE {IS_HELD}{share}", held_by(saga)  # noqa: S608


def pivot_fence(saga: Claimed) -> sql.Statement:
    """Build a pivot's fence, also the begin of the pivot, unless a cancel waits."""
    # The pivot and a cancel write the same row: one comes first, and the other sees the change.
    text = (
        f"UPDATE sagas_saga SET past_pivot = %s WHERE {IS_HELD} AND cancel_reason = ''"  # noqa: S608
        " RETURNING cancel_reason"
    )
    return text, [True, *held_by(saga)]


IS_HELD = "id = %s AND epoch = %s"
"""The condition that the saga's row is still the worker's; the parameters are `held_by()`."""


def held_by(saga: Claimed) -> list[Any]:
    """Return the parameters of `IS_HELD`."""
    return [sql.id_text(saga.id), saga.epoch]
