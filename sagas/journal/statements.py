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
    "failures": "int", "key": "text", "result": "text", "error": "text", "traceback": "text",
    "worker": "text", "resolved_by": "text", "started_at": "timestamptz",
    "finished_at": "timestamptz",
}  # fmt: skip
"""The columns of sagas_step written by an attempt, with their types in PostgreSQL."""

StepRow = Mapping[str, Any]
"""A JSON value for each of STEP_COLUMNS."""

_UPDATED = (
    "status", "attempt", "failures", "result", "error", "traceback", "worker", "started_at",
    "finished_at",
)  # fmt: skip
_FINAL = quoted(status for status, after in STEP_TRANSITIONS.items() if not after)
_SETS = ", ".join(f"{column} = excluded.{column}" for column in _UPDATED)


def step_row(saga: Claimed, step: StepEntry) -> dict[str, Any]:
    """Build the columns of a step's row.

    Args:
        saga: the saga, as claimed by the worker.
        step: the attempt.
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
        "traceback": step.traceback,
        "worker": saga.worker,
        "resolved_by": "",
        "started_at": sql.text_of(step.started_at),
        "finished_at": _finished_at(step),
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


def keep_former_attempts(rows: Sequence[StepRow]) -> list[sql.Statement]:
    """Build the statements to keep the attempts that those in the rows replace.

    They go before `upsert_steps()`. A first attempt replaces none, and costs no statement.
    """
    replaced = "saga_id = %s AND former.step = %s AND former.kind = %s AND former.attempt < %s"
    text = keep_former_from("", f"former.{replaced}")
    return [
        (text, [row["saga_id"], row["step"], row["kind"], row["attempt"]])
        for row in rows
        if row["attempt"] > 1
    ]


def keep_former_from(joined: str, condition: str) -> str:
    """Build the SQL to insert rows of sagas_step, as they are, into sagas_attempt.

    Left out are settled steps, and attempts that are kept already.

    Args:
        joined: SQL behind `FROM sagas_step AS former`.
        condition: SQL that selects the rows.
    """
    columns = ("saga_id", "step", "kind", "attempt", "status", "error", "traceback", "worker")
    return (
        f"INSERT INTO sagas_attempt ({', '.join(columns)}, started_at, at)"  # noqa: S608 - constants
        f" SELECT {', '.join(f'former.{column}' for column in columns)}, former.started_at,"
        f" COALESCE(former.finished_at, former.started_at) FROM sagas_step AS former{joined}"
        f" WHERE former.status NOT IN ({_FINAL}) AND {condition} ON CONFLICT DO NOTHING"
    )


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
