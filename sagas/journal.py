"""What the executor writes, fenced: it commits only under the epoch that was claimed, and for a
step only from the attempt that is its current one.

The fence locks the saga's row against a new claim until the commit, so of two workers that both
believe a saga is theirs only one can write. A cancel takes the same lock: whatever the fence reads
of it still holds at the commit.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from outbox.away import AWAY
from sagas import codec, sql
from sagas.claims import Claimed, StepRecord, record
from sagas.errors import CancelRequested, HookFailed, LeaseLost
from sagas.hooks import Ending, SagaOutcome, call_hooks
from sagas.identity import step_key
from sagas.models import ACTIVE, Saga, SagaStatus, SagaStep, StepStatus
from sagas.outages import is_conflict, is_outage
from sagas.points import Point, reach

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEntry:
    """What became of an attempt at a step. `result`: encoded. `failures`: with this one."""

    step: str
    kind: str
    status: StepStatus
    attempt: int
    failures: int
    started_at: datetime
    result: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Fail:
    """The saga is decided: it will be undone. `cancelled`: because somebody asked for it."""

    reason: str
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """No worker holds the saga until so many seconds have passed."""

    seconds: float


@dataclass(frozen=True, slots=True)
class BeginPivot:
    """From here on the saga cannot be cancelled or undone any more."""


@dataclass(frozen=True, slots=True)
class End:
    """The saga's last entry, where no hook of an app belongs into its transaction."""

    ending: Ending


Change = Fail | Wait | BeginPivot | End


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is written of one saga in one go. `unless_cancelled`: not where a cancel waits."""

    saga: Claimed
    step: StepEntry | None = None
    changes: tuple[Change, ...] = ()
    unless_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an entry is in the journal, and the reason of a cancel that waits, if one does.
    `is_busy`: it is not, because another transaction had the saga's row just then."""

    is_written: bool
    cancel_reason: str = ""
    is_busy: bool = False


FENCED = Verdict(is_written=False)
BUSY = Verdict(is_written=False, is_busy=True)


def write(entries: Sequence[Entry]) -> list[Verdict]:
    """Write entries of several sagas in one transaction. Left out are those whose lease is lost,
    and those of which somebody else holds the saga's row: nobody waits for them."""
    with transaction.atomic():
        verdicts = _admit(entries)
        admitted = [
            entry for entry, verdict in zip(entries, verdicts, strict=True) if verdict.is_written
        ]
        current = _write_steps([entry for entry in admitted if entry.step])
        _write_changes([e for e in admitted if e.step is None or _key(e) in current])
    return [
        FENCED if v.is_written and e.step and _key(e) not in current else v
        for e, v in zip(entries, verdicts, strict=True)
    ]


def do_locally(entry: Entry, *, work: Callable[[], Any], timeout: float | None) -> tuple[Any, str]:
    """Do a local step: its writes, its journal row and the fence commit together.

    Args:
        entry: what the journal shall have, but for the result.
        timeout: seconds that a statement, and a pause between two, may take.

    Returns:
        The result as the journal keeps it, and the reason of a cancel that waits.

    Raises:
        LeaseLost, CancelRequested: nothing is written.
        TimeoutError: neither; the server has ended the transaction for its pauses.
    """
    step = entry.step
    assert step is not None  # noqa: S101 - for the types
    committed = threading.Event()
    try:
        with transaction.atomic(), _no_outage_behind(timeout):
            transaction.on_commit(committed.set)  # before any of the step's own
            _limit_statements(timeout)
            result = codec.encode(work())
            reach(Point.INSIDE_LOCAL_STEP, f"{step.step}:{step.kind}")
            cancel_reason = _write_local(entry, step, result)
    except Exception:
        if not committed.is_set():
            raise
        logger.exception(
            "%s %s: %s is done, but an on_commit function of it failed",
            *(entry.saga.name, entry.saga.key, step.step),
        )
    return codec.decode(result), cancel_reason


def _write_local(entry: Entry, step: StepEntry, result: str) -> str:
    """Returns the reason of a cancel that waits."""
    fence = _pivot_fence if BeginPivot() in entry.changes else _fence
    written, _, *_, held = sql.run_together(
        [
            _upsert([_step_values(entry.saga, step, result=result)]),
            _attempts([(entry.saga, step)]),
            *_progress([entry.saga]),
            fence(entry.saga),
        ]
    )
    if not held and entry.unless_cancelled and sql.run(*_fence(entry.saga)):
        raise CancelRequested
    if not held or not written:
        raise LeaseLost(f"{entry.saga.name} {entry.saga.key} was taken over by another worker")
    return str(held[0][0])


def finish(saga: Claimed, outcome: SagaOutcome) -> None:
    """The saga's last transaction, with what its app makes of it. A second time, after a commit
    whose answer was lost, it changes nothing. A saga parks also where its app's hook fails.

    Raises:
        LeaseLost, CancelRequested, HookFailed: nothing is written.
    """
    with transaction.atomic():
        held = sql.run(*_fence(saga))
        if not held:
            raise LeaseLost(f"{saga.name} {saga.key} was taken over by another worker")
        if outcome.ending is Ending.COMPLETED and held[0][0]:
            raise CancelRequested
        is_parked = outcome.ending is Ending.PARKED
        finished = Saga.objects.filter(id=saga.id, status__in=ACTIVE).update(
            status=SagaStatus(outcome.ending.value),
            park_reason=codec.printable(outcome.reason) if is_parked else "",
            finished_at=None if is_parked else timezone.now(),
        )
        if finished:
            _call_hooks(outcome)
        reach(Point.BEFORE_TERMINAL_COMMIT)


def _call_hooks(outcome: SagaOutcome) -> None:
    """Raises:
    HookFailed: and it is not the database that is to blame; a saga parks in spite of it.
    """
    is_parked = outcome.ending is Ending.PARKED
    try:
        with transaction.atomic() if is_parked else nullcontext():
            call_hooks(outcome)
    except Exception as error:
        if isinstance(error, AWAY) and (is_outage(error) or is_conflict(error)):
            raise
        if not is_parked:
            told = f"its on_finish hook fails: {type(error).__name__}: {error}"
            raise HookFailed(told) from error
        logger.exception("%s %s: its on_park hook failed", outcome.name, outcome.key)


def step_record(saga: Claimed, step: str, kind: str) -> StepRecord | None:
    """The step as the journal has it now: behind a commit that is still under way, whose answer was
    lost, and which holds the saga's row."""
    with transaction.atomic():
        Saga.objects.select_for_update().filter(id=saga.id).values_list("id").first()
    row = SagaStep.objects.filter(saga_id=saga.id, step=step, kind=kind).first()
    return record(row) if row else None


def cancel_reason(saga: Claimed) -> str:
    """Why the saga's cancel was asked for; empty where it was not."""
    reason = Saga.objects.filter(id=saga.id).values_list("cancel_reason", flat=True).first()
    return reason or ""


def adopt(saga: Claimed, definition_hash: str) -> None:
    """A saga of which no step has begun goes by the steps that its class has now."""
    Saga.objects.filter(id=saga.id, epoch=saga.epoch).update(definition_hash=definition_hash)


def _admit(entries: Sequence[Entry]) -> list[Verdict]:
    """Lock the sagas, in one order, and see which entries may be written."""
    ids = {entry.saga.id for entry in entries}
    found = _rows_of(ids, lock=" FOR NO KEY UPDATE SKIP LOCKED" if sql.is_postgresql() else "")
    busy = _rows_of(ids - found.keys()) if len(found) < len(ids) else {}
    return [_verdict(entry, found, busy) for entry in entries]


def _rows_of(ids: Collection[UUID], *, lock: str = "") -> dict[UUID, tuple[int, str]]:
    """Epoch, and the reason of a cancel."""
    among, keys = sql.among(sorted(ids))
    rows = sql.run(
        f"SELECT id, epoch, cancel_reason FROM sagas_saga WHERE {among} ORDER BY id{lock}",  # noqa: S608
        keys,
    )
    return {sql.uuid_of(key): (epoch, reason) for key, epoch, reason in rows}


def _verdict(
    entry: Entry, found: dict[UUID, tuple[int, str]], busy: dict[UUID, tuple[int, str]]
) -> Verdict:
    saga = entry.saga
    if saga.id in busy:
        return BUSY if busy[saga.id][0] == saga.epoch else FENCED
    epoch, cancel_reason = found.get(saga.id, (None, ""))
    if epoch != saga.epoch:
        return FENCED
    return Verdict(not (entry.unless_cancelled and cancel_reason), cancel_reason)


def _write_steps(entries: list[Entry]) -> set[tuple[UUID, str, str]]:
    """Returns those that were written: a step's row is not changed by an attempt before its own."""
    if not entries:
        return set()
    pairs = [(entry.saga, entry.step) for entry in entries if entry.step]
    rows = sql.run(*_upsert([_step_values(saga, step) for saga, step in pairs]))
    current = {(sql.uuid_of(key), step, kind) for key, step, kind in rows}
    pairs = [(saga, step) for saga, step in pairs if (saga.id, step.step, step.kind) in current]
    ended = [saga for saga, step in pairs if step.status is not StepStatus.STARTED]
    if pairs:
        sql.run_together([_attempts(pairs), *_progress(ended)])
    return current


def _write_changes(entries: list[Entry]) -> None:
    statements = [
        _change(entry.saga, change)
        for entry in entries
        for change in entry.changes
        if not isinstance(change, End)
    ]
    ended = [(e.saga, c) for e in entries for c in e.changes if isinstance(c, End)]
    statements.extend(
        _end(ending, [saga for saga, change in ended if change.ending is ending])
        for ending in {change.ending for _, change in ended}
    )
    if statements:
        sql.run_together(statements)


def _change(saga: Claimed, change: Fail | Wait | BeginPivot) -> sql.Statement:
    match change:
        case Fail(reason, cancelled):
            status = SagaStatus.CANCELLING if cancelled else SagaStatus.COMPENSATING
            sets = "status = %s, failure = %s, cancelled = %s, past_pivot = %s"
            params = [status.value, codec.printable(reason), cancelled, False]
            where = " AND failure = ''"
        case Wait(seconds):
            until, moment = sql.moment(seconds_ahead=seconds)
            now, no_params = sql.moment()
            sets = (
                f"status = '{SagaStatus.WAITING.value}', worker = '', next_run_at = CASE"
                f" WHEN failure = '' AND cancel_reason <> '' THEN {now} ELSE {until} END"
            )
            params, where = [*no_params, *moment], ""
        case BeginPivot():
            sets, params, where = "past_pivot = %s", [True], " AND cancel_reason = ''"
        case _:
            assert_never(change)
    return f"UPDATE sagas_saga SET {sets} WHERE id = %s{where}", [*params, sql.id_text(saga.id)]  # noqa: S608


def _end(ending: Ending, sagas: Sequence[Claimed]) -> sql.Statement:
    """No check of the status: what has ended is under another epoch or has been fenced."""
    among, keys = sql.among([saga.id for saga in sagas])
    active = ", ".join(f"'{status.value}'" for status in ACTIVE)
    text = (
        f"UPDATE sagas_saga SET status = %s, finished_at = %s WHERE {among}"  # noqa: S608
        f" AND status IN ({active})"
    )
    return text, [ending.value, sql.text_of(timezone.now()), *keys]


_STEP_COLUMNS = {
    "saga_id": "uuid", "step": "text", "kind": "text", "status": "text", "attempt": "int",
    "failures": "int", "key": "text", "result": "text", "error": "text", "resolved_by": "text",
    "started_at": "timestamptz", "finished_at": "timestamptz",
}  # fmt: skip
_UPDATED = ("status", "attempt", "failures", "result", "error", "started_at", "finished_at")
_ATTEMPT_COLUMNS = {
    "saga_id": "uuid", "step": "text", "kind": "text", "attempt": "int", "status": "text",
    "error": "text", "worker": "text", "started_at": "timestamptz", "at": "timestamptz",
}  # fmt: skip


def _step_values(saga: Claimed, step: StepEntry, *, result: str = "") -> list[Any]:
    return [
        sql.id_text(saga.id),
        step.step,
        step.kind,
        step.status.value,
        step.attempt,
        step.failures,
        step_key(saga.id, step.step, step.kind),
        result or step.result,
        codec.printable(step.error),
        "",
        sql.text_of(step.started_at),
        None if step.status is StepStatus.STARTED else sql.text_of(timezone.now()),
    ]


def _upsert(rows: Sequence[list[Any]]) -> sql.Statement:
    given, params = sql.rows_from(_STEP_COLUMNS, rows)
    sets = ", ".join(f"{column} = excluded.{column}" for column in _UPDATED)
    text = (
        f"INSERT INTO sagas_step ({', '.join(_STEP_COLUMNS)}) {given}"
        f" ON CONFLICT (saga_id, step, kind) DO UPDATE SET {sets}"
        # What an attempt has come to stays, also where it is written again.
        " WHERE sagas_step.attempt < excluded.attempt OR (sagas_step.attempt = excluded.attempt"
        f" AND sagas_step.status IN ('{StepStatus.STARTED.value}', excluded.status))"
        " RETURNING saga_id, step, kind"
    )
    return text, params


def _attempts(pairs: Sequence[tuple[Claimed, StepEntry]]) -> sql.Statement:
    now = sql.text_of(timezone.now())
    rows = [_attempt_values(saga, step, now) for saga, step in pairs]
    given, params = sql.rows_from(_ATTEMPT_COLUMNS, rows)
    text = (
        f"INSERT INTO sagas_attempt ({', '.join(_ATTEMPT_COLUMNS)}) {given}"
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
        codec.printable(step.error),
        saga.worker,
        sql.text_of(step.started_at),
        now,
    ]


def _progress(sagas: Collection[Claimed]) -> list[sql.Statement]:
    """An attempt has ended: the workers that the saga lost before are forgiven."""
    ids = [saga.id for saga in sagas if saga.takeovers]
    if not ids:
        return []
    among, keys = sql.among(ids)
    return [(f"UPDATE sagas_saga SET takeovers = 0 WHERE {among}", keys)]  # noqa: S608 - constants


def _fence(saga: Claimed) -> sql.Statement:
    share = " FOR SHARE" if sql.is_postgresql() else ""
    return (
        f"SELECT cancel_reason FROM sagas_saga WHERE id = %s AND epoch = %s{share}",  # noqa: S608
        [sql.id_text(saga.id), saga.epoch],
    )


def _pivot_fence(saga: Claimed) -> sql.Statement:
    """The pivot and a cancel write the same row: one comes first, and the other sees it."""
    text = (
        "UPDATE sagas_saga SET past_pivot = %s WHERE id = %s AND epoch = %s AND cancel_reason = ''"
        " RETURNING cancel_reason"
    )
    return text, [True, sql.id_text(saga.id), saga.epoch]


@contextmanager
def _no_outage_behind(timeout: float | None) -> Iterator[None]:
    """A connection that is lost behind the timeout is the step's fault: taken for an outage, it
    would be tried without end."""
    began = time.monotonic()
    try:
        yield
    except AWAY as error:
        if timeout is None or time.monotonic() - began < timeout or not is_outage(error):
            raise
        raise TimeoutError from error


def _limit_statements(timeout: float | None) -> None:
    """The thread cannot be stopped, but what it waits for can."""
    if timeout is not None and sql.is_postgresql():
        limit = f"{max(1, round(timedelta(seconds=timeout).total_seconds() * 1000))}ms"
        sql.run(
            "SELECT set_config('statement_timeout', %s, true),"
            " set_config('idle_in_transaction_session_timeout', %s, true)",
            [limit, limit],
        )


def _key(entry: Entry) -> tuple[UUID, str, str]:
    step = entry.step
    assert step is not None  # noqa: S101 - for the types
    return entry.saga.id, step.step, step.kind
