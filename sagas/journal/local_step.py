"""Run a local step: the app's writes, the journal's rows and the fence commit together.

The local steps that follow may share the transaction, and so may the saga's end: see `Together`.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from django.db import transaction
from django.utils import timezone

from saga_runtime.database_errors import AWAY, is_of_another, is_outage, keeps_waiting
from saga_runtime.logs import get_logger
from sagas.crash_points import Point, reach
from sagas.definition.hooks import Ending
from sagas.definition.registry import has_hook
from sagas.errors import CancelRequested, ChainBroken, LeaseLost
from sagas.failures import stand_in
from sagas.journal import codec, end_conditions, limits, sql, statements
from sagas.journal.entries import BeginPivot, Entry, StepEntry
from sagas.journal.records import Claimed

logger = get_logger(__name__)


class Together(Protocol):
    """What shares the transaction of a local step."""

    @property
    def before(self) -> Sequence[StepEntry]:
        """Return the answers of calls that led to the step, to be written before the step."""

    @property
    def ends(self) -> Collection[str]:
        """Return the names of all forward steps, where the saga ends here; otherwise none."""

    def go_on(self, result: Any) -> Sequence[StepEntry]:
        """Do the steps that follow; return their entries, with the results.

        Args:
            result: of the first step, as decoded from the journal.

        Returns:
            The entries; the last may be the start of a call, which is not made here.
        """

    def call_hook(self) -> None:
        """Call the app's hook for the end, if there is one; the saga's row has ended."""


def do_locally(
    entry: Entry,
    *,
    work: Callable[[], Any],
    timeout: float | None,
    finish: Callable[[], datetime] = timezone.now,
    together: Together | None = None,
) -> tuple[Any, str]:
    """Do a local step: the app's writes, the journal's rows and the fence commit together.

    Args:
        entry: the entry of the attempt, without the result.
        work: calls the step; returns a value for `codec` to encode.
        timeout: seconds for each statement, and for each pause between two.
        finish: called when the work is done; returns the moment of the end, for the journal.
        together: what shares the transaction.

    Returns:
        The result as decoded from the journal, and the reason of a waiting cancel, or "".

    Raises:
        LeaseLost: another worker has taken the saga over; nothing is written.
        CancelRequested: a cancel waits, and `entry` is `unless_cancelled`; nothing is written.
        ChainBroken: what was to share the transaction has failed; nothing is written. The step by
            itself may succeed.
        TimeoutError: the server has ended the transaction for a pause, or has given up a deferred
            constraint or trigger at the commit; nothing is written.
    """
    step = entry.step
    assert step is not None  # noqa: S101 - for the types
    committed, is_written = threading.Event(), False
    try:
        # The look at outages within the transaction: where the commit itself gets no answer, the
        # step may be done, and the journal has to be asked.
        with transaction.atomic(), _no_outage_behind(timeout):
            # Before the step's own: where one of those raises, the step is done all the same.
            transaction.on_commit(committed.set)
            if timeout is not None:
                # The thread cannot be stopped, but what it waits for can.
                limits.limit_statements(timeout, keep_usual=together is not None)
            result = codec.encode(work())
            reach(Point.INSIDE_LOCAL_STEP, f"{step.step}:{step.kind}")
            first = replace(step, finished_at=finish(), result=result)
            if together is None:
                cancel_reason = _write_local(entry, [first])
            else:
                cancel_reason = _write_together(entry, first, together)
            is_written = True
    except BaseException as error:
        if not committed.is_set():
            is_lost = isinstance(error, AWAY) and is_outage(error)
            if is_written and together is not None and not is_lost:
                # The commit was refused: perhaps not because of this step.
                raise ChainBroken from error
            if is_written and keeps_waiting(error):
                # The commit runs what the app has deferred: its constraints and their triggers.
                raise TimeoutError from error
            raise
        logger.error(  # noqa: TRY400 - the error itself may not be printable
            "%s %s: %s is done, but an on_commit function of it failed",
            *(entry.saga.name, entry.saga.key, step.step),
            exc_info=stand_in(error),
        )
    if not committed.is_set():
        # The app's hook, which comes last, has the transaction rolled back and has not said so.
        raise ChainBroken
    return codec.decode(result), cancel_reason


def _write_together(entry: Entry, first: StepEntry, together: Together) -> str:
    """Do what shares the transaction, and write all of it.

    Returns:
        "", for no cancel waits.

    Raises:
        ChainBroken: something has failed, or a cancel waits, which belongs between two steps.
    """
    try:
        after = together.go_on(codec.decode(first.result))
        if together.ends:
            _write_end(entry, [*together.before, first, *after], names=together.ends)
            # Last, so that other sagas wait for the rows of the app's hook for a short time only.
            together.call_hook()
            return ""
        cancel_reason = _write_local(entry, [*together.before, first, *after])
    except LeaseLost:
        raise
    except Exception as error:
        raise ChainBroken from error
    if cancel_reason:
        raise ChainBroken
    return ""


def _write_end(entry: Entry, steps: Sequence[StepEntry], *, names: Collection[str]) -> None:
    """Write the journal's rows and the saga's end, in one round trip.

    Args:
        entry: of the first step.
        steps: as for `_write_local`.
        names: of all forward steps.

    Raises:
        LeaseLost: another worker has taken the saga over.
        ChainBroken: a cancel waits, or the journal does not let the saga end so.
    """
    saga = entry.saga
    rows = [statements.step_row(saga, step) for step in steps]
    # Those of the last step are not the hook's.
    usual = limits.usual_limits() if has_hook(saga.name, Ending.COMPLETED) else []
    # The saga's row once: its end is the fence, and the begin of a pivot.
    ended = _write_steps(
        saga, rows, [*usual, end_conditions.completion(saga, names, pivot=entry.unless_cancelled)]
    )
    if ended:
        return
    if not sql.run(*statements.fence(saga)):
        raise LeaseLost(saga.loss)
    raise ChainBroken


def _write_local(entry: Entry, steps: Sequence[StepEntry]) -> str:
    """Write the journal's rows behind the fence; return the reason of a waiting cancel.

    Args:
        entry: of the first step.
        steps: all that the transaction has: the answer of a call, the first step, what follows.
    """
    fence = statements.pivot_fence if BeginPivot() in entry.changes else statements.fence
    rows = [statements.step_row(entry.saga, step) for step in steps]
    # The fence last: until then neither claims nor cancels wait for this step's row lock.
    forgiven = statements.forget_takeovers([entry.saga])
    held = _write_steps(entry.saga, rows, [*forgiven, fence(entry.saga)])
    # The pivot's fence finds no row either way; the plain fence tells a cancel from a takeover.
    if not held and entry.unless_cancelled and sql.run(*statements.fence(entry.saga)):
        raise CancelRequested
    if not held:
        raise LeaseLost(entry.saga.loss)
    return str(held[0][0])


def _write_steps(
    saga: Claimed, rows: Sequence[statements.StepRow], after: Sequence[sql.Statement]
) -> sql.Rows:
    """Write the steps' rows, and what follows, in one round trip.

    Returns:
        The rows of the last statement.

    Raises:
        LeaseLost: the upsert has left a row as it was: with a later attempt, or a person's word.
    """
    kept = statements.keep_former_attempts(rows)
    found = sql.run_together([*kept, statements.upsert_steps(rows), *after])
    if len(found[len(kept)]) < len(rows):
        raise LeaseLost(saga.loss)
    return found[-1]


@contextmanager
def _no_outage_behind(timeout: float | None) -> Iterator[None]:
    """Raise TimeoutError for a connection lost after the timeout: the step is at fault.

    Taken for an outage of the database, the step would be tried without end.
    """
    began = time.monotonic()
    try:
        yield
    except AWAY as error:
        is_ours = is_outage(error) and not is_of_another(error)
        if timeout is None or time.monotonic() - began < timeout or not is_ours:
            raise
        # Not from the outage: the run looks at causes, and would excuse the step.
        raise TimeoutError from None
