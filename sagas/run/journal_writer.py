"""Write a run's entries into the journal: again while the database is away."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar, assert_never

from saga_runtime.abandoned_calls import current_step
from saga_runtime.database_errors import AWAY, is_conflict, is_outage, keeps_waiting
from saga_runtime.database_threads import CallHangs
from saga_runtime.hang_watch import Watch
from saga_runtime.logs import get_logger
from saga_runtime.text import describe_error
from sagas.crash_points import Point, reach
from sagas.errors import LeaseLost, Suspended
from sagas.journal.entries import (
    BeginPivot,
    Busy,
    Cancelled,
    Change,
    Entry,
    Fenced,
    Refused,
    StepEntry,
    Verdict,
    Written,
)
from sagas.models import StepStatus
from sagas.run.patience import Patience
from sagas.run.resources import RunResources
from sagas.run.state import RunState

logger = get_logger(__name__)

Answer = Written | Cancelled | Refused
"""What becomes of an entry of a run that goes on."""

P = ParamSpec("P")
R = TypeVar("R")


class JournalWriter:
    """Write the entries of a run.

    Args:
        state: of the run; keeps the cancel that a verdict mentions.
        patience: waits while the database is away.
        resources: of the worker: group commit, threads for the journal, timing.
    """

    def __init__(self, state: RunState, patience: Patience, resources: RunResources) -> None:
        self._state = state
        self._patience = patience
        self._group = resources.group
        self._threads = resources.journal
        self._timing = resources.timing
        self._unconfirmed: list[tuple[Entry, asyncio.Future[Verdict]]] = []
        self._held: StepEntry | None = None

    @property
    def held(self) -> StepEntry | None:
        """Return the answer of a call that waits for the next transaction, if any."""
        return self._held

    def hold(self, step: StepEntry) -> None:
        """Keep the answer of a call for the transaction of the local step that follows.

        Whatever else is written of the saga, the answer is handed in before.
        """
        self._held = step

    def note_held_written(self) -> None:
        """Note that the local step's transaction has committed, with the answer of the call."""
        if self._held is not None:
            reach(Point.STEP_DONE, f"{self._held.step}:{self._held.kind}")
        self._held = None

    async def append(
        self, *changes: Change, step: StepEntry | None = None, unless_cancelled: bool = False
    ) -> Answer:
        """Write an entry, and wait for the commit.

        Args:
            changes: of the saga.
            step: an attempt.
            unless_cancelled: do not write where a cancel waits.

        Returns:
            Whether the entry is written. Only an entry `unless_cancelled` may be cancelled, and
            only an end refused.

        Raises:
            Suspended: nothing is written, the saga belongs to a later claim; or nobody knows, as
                the database is away and the worker stopping.
        """
        self._hand_in_held()
        # A decision, a wait or an end must not rest on an answer that may yet get lost.
        if any(not isinstance(change, BeginPivot) for change in changes):
            await self.settle()
        entry = Entry(
            saga=self._state.claimed, step=step, changes=changes, unless_cancelled=unless_cancelled
        )
        # Handed in before the wait, so that the last call's answer shares the transaction.
        written = self._group.put(entry)
        try:
            await self.settle()
        except BaseException:
            # It may commit all the same: `close()` waits for it.
            self._unconfirmed.append((entry, written))
            raise
        return await self._verdict_on(entry, written)

    def append_nowait(self, step: StepEntry) -> None:
        """Hand in the result of a call, without waiting for the commit.

        The entry shares a transaction with the start of the next call. `settle()` waits for the
        commit, before anything is done with the result.
        """
        entry = Entry(saga=self._state.claimed, step=step)
        self._unconfirmed.append((entry, self._group.put(entry)))

    async def settle(self, *, but_held: bool = False) -> None:
        """Wait until every entry that was handed in is committed.

        Args:
            but_held: leave the answer that `hold()` keeps out.

        Raises:
            Suspended: an entry is not committed, and nothing may follow.
        """
        if not but_held:
            self._hand_in_held()
        while self._unconfirmed:
            # In the order of handing in, which is that of the groups.
            entry, written = self._unconfirmed.pop(0)
            try:
                await self._verdict_on(entry, written)
            except Suspended:
                raise
            except Exception as error:
                raise self._state.suspended_by(describe_error(error)) from error
            if entry.step is not None and entry.step.status is StepStatus.DONE:
                reach(Point.STEP_DONE, f"{entry.step.step}:{entry.step.kind}")

    async def close(self) -> None:
        """Wait for every entry that was handed in, written or not."""
        self._hand_in_held()
        unconfirmed = [written for _, written in self._unconfirmed]
        self._unconfirmed.clear()
        if unconfirmed:
            await asyncio.gather(*unconfirmed, return_exceptions=True)

    def _hand_in_held(self) -> None:
        if self._held is not None:
            step, self._held = self._held, None
            self.append_nowait(step)

    async def _verdict_on(self, entry: Entry, written: "asyncio.Future[Verdict]") -> Answer:
        """Wait for the verdict on an entry; where the verdict is lost or busy, try again.

        Raises:
            Suspended: as `append()`.
        """
        while True:
            try:
                verdict = await written
            except AWAY as error:
                if keeps_waiting(error):
                    await self._patience.wait_for_row(error)
                elif is_outage(error) or is_conflict(error):
                    await self._patience.wait_out_outage(error)
                else:
                    raise
            else:
                self._patience.note_answer()
                if not isinstance(verdict, Busy):
                    return self._heed(verdict)
                await self._patience.wait_for_writer()
            # Nobody knows whether the lost one is committed; an entry may be written twice.
            written = self._group.put(entry)

    def _heed(self, verdict: Written | Cancelled | Fenced | Refused) -> Answer:
        """Note the cancel in a verdict, and return the verdict.

        Raises:
            Suspended: the lease is lost.
        """
        match verdict:
            case Written(cancel_reason) | Cancelled(cancel_reason):
                self._state.note_cancel(cancel_reason)
                return verdict
            case Refused():
                return verdict
            case Fenced():
                raise self._state.suspended_by(self._state.claimed.loss)
            case _:
                assert_never(verdict)

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function of the journal in a thread, and again while the database is away.

        Raises:
            Suspended: the lease is lost, or the worker is to stop.
        """
        do = partial(self._threads.run, function, *args, **kwargs)
        try:
            return await self._patience.until_it_answers(do)
        except LeaseLost as error:
            raise self._state.suspended_by(str(error)) from error

    async def call_at_the_end(
        self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call a function with an app's hook in it, and again while the database is away.

        Raises:
            Suspended: the lease is lost, the hook hangs, or the worker is to stop.
        """
        saga = self._state.claimed
        token = current_step.set(f"{saga.name} {saga.key}: the function at its end")
        do = partial(function, *args, **kwargs)
        try:
            return await self._patience.until_it_answers(
                partial(self.call_foreign, do, still_for=self._timing.hook_limit)
            )
        finally:
            current_step.reset(token)

    async def call_foreign(self, function: Callable[[], R], *, still_for: float | None) -> R:
        """Call an app's code in a thread, once.

        Args:
            function: the code, within the statements of the journal.
            still_for: seconds allowed without a statement; None for no limit.

        Raises:
            Suspended: the lease is lost, or the code hangs. Code that hangs may still commit, until
                the saga is claimed again.
        """
        try:
            if still_for is None:
                return await self._threads.run(function)
            watch = Watch(still_for + self._timing.hang_margin)
            return await self._threads.run_watched(watch, function)
        except LeaseLost as error:
            raise self._state.suspended_by(str(error)) from error
        except CallHangs as error:
            self._state.hangs = True
            logger.error(  # noqa: TRY400 - its traceback says nothing
                "%s, and makes no statement: its thread is stuck. The saga is left to another "
                "worker; give what it calls a timeout of its own",
                error,
            )
            raise self._state.suspended_by(str(error)) from error
