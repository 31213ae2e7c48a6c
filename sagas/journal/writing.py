"""Write the entries of runs, behind the fence.

An entry commits only under the claimed epoch, and a step's entry only from the current attempt. The
fence locks the saga's row against a new claim until the commit: where two workers both believe they
hold a saga, the older claim cannot write. A cancel takes the same lock, so a cancel seen by the
fence, or none, still holds at the commit.
"""

from collections.abc import Collection, Sequence
from typing import assert_never
from uuid import UUID

from django.db import transaction

from saga_runtime.text import bounded
from sagas.journal import end_conditions, one_statement, sql, statements
from sagas.journal.entries import (
    BeginPivot,
    Busy,
    Cancelled,
    End,
    Entry,
    Fail,
    Fenced,
    Refused,
    Verdict,
    Wait,
    Written,
)
from sagas.journal.records import Claimed
from sagas.journal.state_machine import may_become
from sagas.models import Saga, SagaStatus, StepStatus


def write(entries: Sequence[Entry]) -> list[Verdict]:
    """Write entries of several sagas in a single transaction, without waiting for locked rows.

    Returns:
        A verdict for each entry, in the same order.

    Raises:
        django.db.Error: nothing is written, or the commit's answer was lost. The same entries may
            be written again.
    """
    if sql.is_postgresql() and all(map(one_statement.fits, entries)):
        found = one_statement.write_at_once(entries)
        return _with_busy(entries, found) if None in found else [v for v in found if v]
    return _write_in_turn(entries)


def _write_in_turn(entries: Sequence[Entry]) -> list[Verdict]:
    with transaction.atomic():
        # First the locks: what they find of epochs and cancels holds until the commit. Steps before
        # changes: an end of this group is checked against the group's own steps.
        verdicts = _admit(entries)
        admitted = [
            entry
            for entry, verdict in zip(entries, verdicts, strict=True)
            if isinstance(verdict, Written)
        ]
        current = _write_steps([entry for entry in admitted if entry.step])
        refused = _write_changes([e for e in admitted if e.step is None or _key(e) in current])
    outcomes: list[Verdict] = []
    for entry, verdict in zip(entries, verdicts, strict=True):
        if isinstance(verdict, Written) and entry.step and _key(entry) not in current:
            outcomes.append(Fenced())
        elif any(entry is each for each in refused):
            outcomes.append(Refused())
        else:
            outcomes.append(verdict)
    return outcomes


def adopt_definition(saga: Claimed, definition_hash: str) -> None:
    """Let a saga without a begun step go by the present steps of the class."""
    Saga.objects.filter(id=saga.id, epoch=saga.epoch).update(definition_hash=definition_hash)


def _admit(entries: Sequence[Entry]) -> list[Verdict]:
    """Lock the sagas' rows, and give each entry a verdict."""
    ids = {entry.saga.id for entry in entries}
    found = _rows_of(ids, lock=" FOR NO KEY UPDATE SKIP LOCKED" if sql.is_postgresql() else "")
    busy = _rows_of(ids - found.keys()) if len(found) < len(ids) else {}
    return [_verdict(entry, found, busy) for entry in entries]


def _with_busy(entries: Sequence[Entry], found: Sequence[Verdict | None]) -> list[Verdict]:
    busy = _rows_of({e.saga.id for e, verdict in zip(entries, found, strict=True) if not verdict})
    return [verdict or _verdict(e, {}, busy) for e, verdict in zip(entries, found, strict=True)]


def _rows_of(ids: Collection[UUID], *, lock: str = "") -> dict[UUID, tuple[int, str]]:
    """Return the epoch, and the reason of a cancel, of each existing saga.

    Args:
        ids: the sagas.
        lock: SQL to lock the rows, in the order of ids: two groups of the same sagas must not
            deadlock.
    """
    among, keys = sql.among(sorted(ids))
    found = sql.run(
        f"SELECT id, epoch, cancel_reason FROM sagas_saga WHERE {among} ORDER BY id{lock}",  # noqa: S608
        keys,
    )
    return {sql.uuid_of(key): (epoch, reason) for key, epoch, reason in found}


def _verdict(
    entry: Entry, found: dict[UUID, tuple[int, str]], busy: dict[UUID, tuple[int, str]]
) -> Verdict:
    saga = entry.saga
    # Read without the lock, which somebody else holds: the epoch tells whether to try again.
    if saga.id in busy:
        return Busy() if busy[saga.id][0] == saga.epoch else Fenced()
    epoch, cancel_reason = found.get(saga.id, (None, ""))
    if epoch != saga.epoch:
        return Fenced()
    if entry.unless_cancelled and cancel_reason:
        return Cancelled(cancel_reason)
    return Written(cancel_reason)


def _write_steps(entries: list[Entry]) -> set[tuple[UUID, str, str]]:
    """Write the steps of entries.

    Returns:
        Saga, step and kind of each written row: a later attempt's row stays unchanged.
    """
    if not entries:
        return set()
    pairs = [(entry.saga, entry.step) for entry in entries if entry.step]
    rows = [statements.step_row(saga, step) for saga, step in pairs]
    *_, written = sql.run_together(
        [*statements.keep_former_attempts(rows), statements.upsert_steps(rows)]
    )
    current = {(sql.uuid_of(key), step, kind) for key, step, kind in written}
    ended = [
        saga
        for saga, step in pairs
        if step.status is not StepStatus.STARTED and (saga.id, step.step, step.kind) in current
    ]
    if forgive := statements.forget_takeovers(ended):
        sql.run_together(forgive)
    return current


def _write_changes(entries: list[Entry]) -> list[Entry]:
    """Write the changes of the sagas' rows; return the entries whose end is refused."""
    changes = [
        _change(entry.saga, change)
        for entry in entries
        for change in entry.changes
        if not isinstance(change, End)
    ]
    if changes:
        sql.run_together(changes)
    # Ends last: `rolled_back` asks for a failure, which may be among the changes.
    return [
        entry
        for entry in entries
        for change in entry.changes
        if isinstance(change, End) and _is_refused(entry.saga, change)
    ]


def _is_refused(saga: Claimed, end: End) -> bool:
    """Try to end a saga, and tell whether the journal refuses; an ended saga stays so."""
    return not sql.run(
        *end_conditions.statement(saga, end.ending, end.steps)
    ) and end_conditions.is_active(saga)


def _change(saga: Claimed, change: Fail | Wait | BeginPivot) -> sql.Statement:
    match change:
        case Fail(reason, cancelled):
            status = SagaStatus.CANCELLING if cancelled else SagaStatus.COMPENSATING
            sets = "status = %s, failure = %s, cancelled = %s, past_pivot = %s"
            params = [status.value, bounded(reason), cancelled, False]
            where = f" AND failure = '' AND {may_become(status)}"
        case Wait(seconds):
            until, moment = sql.moment(seconds_ahead=seconds)
            now, no_params = sql.moment()
            # A cancel may have come in after the run's last look: it must not wait as well.
            sets = (
                f"status = '{SagaStatus.WAITING.value}', worker = '', next_run_at = CASE"
                f" WHEN failure = '' AND cancel_reason <> '' THEN {now} ELSE {until} END"
            )
            params, where = [*no_params, *moment], f" AND {may_become(SagaStatus.WAITING)}"
        case BeginPivot():
            sets, params, where = "past_pivot = %s", [True], " AND cancel_reason = ''"
        case _:
            assert_never(change)
    return f"UPDATE sagas_saga SET {sets} WHERE id = %s{where}", [*params, sql.id_text(saga.id)]  # noqa: S608


def _key(entry: Entry) -> tuple[UUID, str, str]:
    step = entry.step
    assert step is not None  # noqa: S101 - for the types
    return entry.saga.id, step.step, step.kind
