"""Write a group of entries by a single statement of PostgreSQL.

The statement is a transaction of its own, to lock the rows of the sagas, check the fences, and
write steps, attempts and ends. Most groups fit: see `fits()`; `writing` writes all further groups.
"""

import json
from collections.abc import Sequence
from typing import Any

from django.utils import timezone

from sagas.definition.hooks import Ending
from sagas.journal import end_conditions, sql, statements
from sagas.journal.entries import (
    BeginPivot,
    Cancelled,
    End,
    Entry,
    Fenced,
    Refused,
    Verdict,
    Written,
)
from sagas.models import StepStatus

_TYPES = {
    **statements.STEP_COLUMNS,
    "n": "int", "epoch": "bigint", "guarded": "boolean", "forgiven": "boolean",
    "pivot": "boolean", "ending": "text", "steps": "json", "at": "timestamptz",
}  # fmt: skip
_IS_DONE = end_conditions.is_done(
    "SELECT json_array_elements_text(valid.steps)", "json_array_length(valid.steps)"
)
_STEP_COLUMNS = ", ".join(statements.STEP_COLUMNS)
_ADMITTED_STEPS = f"SELECT {_STEP_COLUMNS} FROM admitted WHERE step <> ''"  # noqa: S608 - constants
_KEEP_FORMER = statements.keep_former_from(
    " JOIN admitted ON admitted.saga_id = former.saga_id"
    " AND admitted.step = former.step AND admitted.kind = former.kind",
    # A first attempt comes after none: PostgreSQL then looks for no row.
    "admitted.attempt > 1 AND former.attempt < admitted.attempt",
)
_STATEMENT = (
    # The entries, a row for each, numbered: one parameter, however many there are.
    f"""
WITH given AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%s) AS rows ({", ".join(f"{n} {t}" for n, t in _TYPES.items())})
), """  # noqa: S608 - constants
    # The lock: until the commit nobody claims or cancels these sagas. In the order of ids, or two
    # groups could deadlock; a row that somebody else has locked is left out, for nobody waits here.
    """held AS MATERIALIZED (
    SELECT id, epoch, cancel_reason FROM sagas_saga WHERE id = ANY(%s::uuid[])
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
), """
    # The fence: entries whose worker still has the saga, and which no cancel keeps back.
    """admitted AS MATERIALIZED (
    SELECT given.* FROM given JOIN held ON held.id = saga_id AND held.epoch = given.epoch
    WHERE NOT guarded OR cancel_reason = ''
), """
    # The attempts that these come after, with what the steps' rows say before this statement.
    f"""kept AS (
    {_KEEP_FORMER}
), """
    # The steps' rows; returned are the rows that no later attempt has overtaken.
    f"""written AS (
    {statements.upsert_from(_ADMITTED_STEPS)}
), """
    # The entries that stand, with or without a step: all that follows goes by them.
    """valid AS MATERIALIZED (
    SELECT * FROM admitted
    WHERE step = '' OR (saga_id, step, kind) IN (SELECT saga_id, step, kind FROM written)
), """
    # Ends that the journal does not allow. All parts of a statement see the tables as they were
    # before the statement, so an end is checked against the steps of earlier commits.
    f"""refused AS MATERIALIZED (
    SELECT valid.n FROM valid
    JOIN sagas_saga ON sagas_saga.id = valid.saga_id AND {end_conditions.IS_ACTIVE}
    WHERE valid.ending IS NOT NULL AND NOT CASE valid.ending
        WHEN '{Ending.COMPLETED}' THEN {_IS_DONE} ELSE {end_conditions.IS_UNDONE} END
), """
    # The sagas' rows, each once: an UPDATE with two rows for one target would take either.
    f"""changed AS (
    UPDATE sagas_saga SET
        takeovers = CASE WHEN new.forgiven THEN 0 ELSE takeovers END,
        past_pivot = past_pivot OR (new.pivot AND cancel_reason = ''),
        status = COALESCE(new.ending, status),
        finished_at = CASE WHEN new.ending IS NULL THEN finished_at ELSE new.at END
    FROM (
        SELECT saga_id, bool_or(forgiven) AS forgiven, bool_or(pivot) AS pivot,
            max(ending) AS ending, max(at) AS at
        FROM valid WHERE (forgiven OR pivot OR ending IS NOT NULL)
            AND n NOT IN (SELECT n FROM refused)
        GROUP BY saga_id
    ) AS new
    WHERE id = new.saga_id AND {end_conditions.IS_ACTIVE}
)
"""
    # A row for each entry whose saga's row was locked. Of an entry without a row the caller must
    # ask why: the saga is gone, or its row is held elsewhere.
    """SELECT given.n, held.epoch = given.epoch, cancel_reason, valid.n IS NOT NULL,
    refused.n IS NOT NULL
FROM given JOIN held ON held.id = given.saga_id LEFT JOIN valid ON valid.n = given.n
LEFT JOIN refused ON refused.n = given.n
"""
)


def fits(entry: Entry) -> bool:
    """Tell whether the statement can write an entry."""
    return all(isinstance(change, BeginPivot | End) for change in entry.changes)


def write_at_once(entries: Sequence[Entry]) -> list[Verdict | None]:
    """Write entries of several sagas in a single statement without waiting for locks.

    Args:
        entries: `fits` is true for each.

    Returns:
        A verdict for each entry; None where the saga is gone, or where another transaction holds
        the saga's row.
    """
    at = sql.text_of(timezone.now())
    given = json.dumps([_given_row(n, entry, at) for n, entry in enumerate(entries)])
    ids = "{" + ",".join({str(entry.saga.id) for entry in entries}) + "}"
    verdicts: list[Verdict | None] = [None] * len(entries)
    for n, is_held, reason, is_written, is_refused in sql.run_planned(_STATEMENT, [given, ids]):
        if is_refused:
            verdicts[n] = Refused()
        elif is_written:
            verdicts[n] = Written(reason)
        elif is_held and entries[n].unless_cancelled and reason:
            verdicts[n] = Cancelled(reason)
        else:
            verdicts[n] = Fenced()
    return verdicts


def _given_row(n: int, entry: Entry, at: str) -> dict[str, Any]:
    """Build the row of `given` for an entry; a missing column of `_TYPES` is NULL."""
    saga, step = entry.saga, entry.step
    row: dict[str, Any] = {
        "n": n, "saga_id": sql.id_text(saga.id), "epoch": saga.epoch, "at": at,
        "guarded": entry.unless_cancelled, "forgiven": False, "pivot": False, "step": "",
    }  # fmt: skip
    for change in entry.changes:
        if isinstance(change, End):
            row |= {"ending": change.ending, "steps": change.steps}
        else:
            row["pivot"] = True
    if step is not None:
        row |= statements.step_row(saga, step)
        row["forgiven"] = bool(saga.takeovers) and step.status is not StepStatus.STARTED
    return row
