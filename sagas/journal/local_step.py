"""Run a local step: the app's writes, the journal's rows and the fence commit together."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from saga_runtime.database_errors import AWAY, is_of_another, is_outage, keeps_waiting
from saga_runtime.logs import get_logger
from sagas.crash_points import Point, reach
from sagas.errors import CancelRequested, LeaseLost
from sagas.failures import stand_in
from sagas.journal import codec, libpq, sql, statements
from sagas.journal.entries import BeginPivot, Entry, StepEntry

logger = get_logger(__name__)


def do_locally(
    entry: Entry,
    *,
    work: Callable[[], Any],
    timeout: float | None,
    finish: Callable[[], datetime] = timezone.now,
) -> tuple[Any, str]:
    """Do a local step: the app's writes, the journal's rows and the fence commit together.

    Args:
        entry: the entry of the attempt, without the result.
        work: calls the step; returns a value for `codec` to encode.
        timeout: seconds for each statement, and for each pause between two.
        finish: called when the work is done; returns the moment of the end, for the journal.

    Returns:
        The result as decoded from the journal, and the reason of a waiting cancel, or "".

    Raises:
        LeaseLost: another worker has taken the saga over; nothing is written.
        CancelRequested: a cancel waits, and `entry` is `unless_cancelled`; nothing is written.
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
            if timeout is not None and sql.is_postgresql():
                # The thread cannot be stopped, but what it waits for can.
                libpq.limit_statements(timeout)
            result = codec.encode(work())
            reach(Point.INSIDE_LOCAL_STEP, f"{step.step}:{step.kind}")
            cancel_reason = _write_local(entry, replace(step, finished_at=finish()), result)
            is_written = True
    except BaseException as error:
        if not committed.is_set():
            if is_written and keeps_waiting(error):
                # The commit runs what the app has deferred: its constraints and their triggers.
                raise TimeoutError from error
            raise
        logger.error(  # noqa: TRY400 - the error itself may not be printable
            "%s %s: %s is done, but an on_commit function of it failed",
            *(entry.saga.name, entry.saga.key, step.step),
            exc_info=stand_in(error),
        )
    return codec.decode(result), cancel_reason


def _write_local(entry: Entry, step: StepEntry, result: str) -> str:
    """Write the journal's rows behind the fence; return the reason of a waiting cancel."""
    fence = statements.pivot_fence if BeginPivot() in entry.changes else statements.fence
    at = sql.text_of(timezone.now())
    row = statements.step_row(entry.saga, step, at=at, result=result)
    # The fence last: until then neither claims nor cancels wait for this step's row lock.
    held = sql.run_together(
        [
            statements.upsert_steps([row]),
            statements.insert_attempts([row]),
            *statements.forget_takeovers([entry.saga]),
            fence(entry.saga, step),
        ]
    )
    # The pivot's fence finds no row either way; the plain fence tells a cancel from a takeover.
    if not held and entry.unless_cancelled and sql.run(*statements.fence(entry.saga, step)):
        raise CancelRequested
    if not held:
        raise LeaseLost(f"{entry.saga.name} {entry.saga.key} was taken over by another worker")
    return str(held[0][0])


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
