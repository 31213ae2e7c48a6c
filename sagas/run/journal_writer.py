"""How a run writes to the journal: again while the database is away, and heeding the verdict."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import ParamSpec, TypeVar, assert_never

from saga_runtime.abandoned_calls import current_step
from saga_runtime.database_errors import AWAY, is_conflict, is_outage, keeps_waiting
from saga_runtime.database_threads import CallHangs, Threads
from saga_runtime.hang_watch import Watch
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage
from saga_runtime.text import describe_error, one_line_error
from saga_runtime.waits import until_set
from sagas.errors import CancelRequested, EndRefused, LeaseLost, Suspended
from sagas.journal import sql
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
from sagas.journal.group_commit import GroupCommit
from sagas.run.state import RunState

logger = get_logger(__name__)

BUSY_PAUSE = 0.02  # seconds; a cancel or a person holds a saga's row for no longer
LONGEST_BUSY_PAUSE = 1.0
TOLD_EVERY = 10  # times that the database gave up
STILL_MARGIN = 30.0
"""Seconds beyond its limit that an app's code may go on in a thread without a statement. Longer
than SQLite's writers wait for their turn, which is no statement."""
STILL_AT_THE_END = 60.0
"""The limit, in seconds, of the functions that an app has called at a saga's end."""

P = ParamSpec("P")
R = TypeVar("R")


class Writer:
    """Writes what happens in one run."""

    def __init__(self, state: RunState, *, group: GroupCommit, threads: Threads) -> None:
        self._state = state
        self._group = group
        self._threads = threads
        self._outage = Outage("the database", logger=logger)
        self._given_up = 0
        self._posted: list[tuple[Entry, asyncio.Future[Verdict], Callable[[], None]]] = []

    async def write(
        self, *changes: Change, step: StepEntry | None = None, unless_cancelled: bool = False
    ) -> None:
        """Write an entry; a cancel that waits is noted in the run's state.

        Raises:
            LeaseLost: it is not written, the saga is another worker's.
            CancelRequested: it is not written, where `unless_cancelled`.
            EndRefused: the journal does not allow that end.
            Suspended: nobody knows; the database is away, and the worker stopping.
        """
        if any(not isinstance(change, BeginPivot) for change in changes):
            await self.settle()
        entry = Entry(
            saga=self._state.claimed, step=step, changes=changes, unless_cancelled=unless_cancelled
        )
        written = self._group.put(entry)
        try:
            await self.settle()
        except BaseException:
            self._posted.append((entry, written, lambda: None))  # close() waits for it
            raise
        await self._is_written(entry, written)

    def post(self, *, step: StepEntry, then: Callable[[], None]) -> None:
        """Hand in the answer of a call without waiting: it shares a transaction with the start of
        the next one. Before anything is done that follows from it, `settle()` waits for it.

        Args:
            then: called once it is written.
        """
        entry = Entry(saga=self._state.claimed, step=step)
        self._posted.append((entry, self._group.put(entry), then))

    async def settle(self) -> None:
        """Wait until what was posted is written.

        Raises:
            LeaseLost, Suspended: it is not, and nothing may follow from it.
        """
        while self._posted:
            entry, written, then = self._posted.pop(0)
            try:
                await self._is_written(entry, written)
            except (LeaseLost, Suspended):
                raise
            except Exception as error:
                reason = describe_error(error)
                self._state.suspend(reason)
                raise Suspended(reason) from error
            then()

    async def close(self) -> None:
        """Wait for what was posted, whatever becomes of it."""
        posted = [written for _, written, _ in self._posted]
        self._posted.clear()
        if posted:
            await asyncio.gather(*posted, return_exceptions=True)

    async def _is_written(self, entry: Entry, written: "asyncio.Future[Verdict]") -> None:
        while True:
            try:
                verdict = await written
            except AWAY as error:
                if keeps_waiting(error):
                    await self.give_time(error)
                elif is_outage(error) or is_conflict(error):
                    await self.pause(error)
                else:
                    raise
            else:
                self._outage.over()
                self._given_up = 0
                if not isinstance(verdict, Busy):
                    self._heed(verdict)
                    return
                await self.rest(BUSY_PAUSE)
            written = self._group.put(entry)

    def _heed(self, verdict: Written | Cancelled | Fenced | Refused) -> None:
        match verdict:
            case Written(cancel_reason):
                self._state.note_cancel(cancel_reason)
            case Cancelled(reason):
                self._state.note_cancel(reason)
                raise CancelRequested
            case Refused():
                raise EndRefused
            case Fenced():
                saga = self._state.claimed
                raise LeaseLost(f"{saga.name} {saga.key} was taken over by another worker")
            case _:
                assert_never(verdict)

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call something that may be called again in a thread, while the database is away too."""
        return await self._until_it_answers(partial(self._threads.run, function, *args, **kwargs))

    async def call_at_the_end(
        self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The same for what calls an app's functions at the saga's end.

        Raises:
            Suspended: one of them hangs.
        """
        saga = self._state.claimed
        token = current_step.set(f"{saga.name} {saga.key}: the function at its end")
        do = partial(function, *args, **kwargs)
        try:
            return await self._until_it_answers(
                partial(self.call_foreign, do, still_for=STILL_AT_THE_END)
            )
        finally:
            current_step.reset(token)

    async def _until_it_answers(self, call: Callable[[], Awaitable[R]]) -> R:
        """Call, and again while the database is away."""
        while True:
            try:
                result = await call()
            except AWAY as error:
                await (self.give_time if keeps_waiting(error) else self.pause)(error)
            else:
                self._outage.over()
                self._given_up = 0
                return result

    async def call_foreign(self, function: Callable[[], R], *, still_for: float | None) -> R:
        """Call an app's code in a thread, once.

        Args:
            still_for: seconds that it may go on without a statement; None for no limit.

        Raises:
            Suspended: it hangs. It may still commit, until another worker has taken the saga up.
        """
        if still_for is None:
            return await self._threads.run(function)
        try:
            return await self._threads.run_watched(Watch(still_for + STILL_MARGIN), function)
        except CallHangs as error:
            self._state.hangs = True
            self._state.suspend(str(error))
            logger.error(  # noqa: TRY400 - its traceback says nothing
                "%s, and makes no statement: its thread is stuck. The saga is left to another "
                "worker; give what it calls a timeout of its own",
                error,
            )
            raise Suspended(str(error)) from error

    async def pause(self, error: Exception) -> None:
        """The database is away."""
        await self.rest(self._outage.failed(error))

    async def give_time(self, error: Exception) -> None:
        """Rest where our database answers, and has given up a statement of the journal: somebody
        holds the saga's row, or it is overloaded. That is nothing against the step."""
        if self._given_up % TOLD_EVERY == 0:
            logger.warning(
                "%s %s: the database gives up what the journal asks, trying on. Does somebody hold "
                "the saga's row? %s",
                *(self._state.claimed.name, self._state.claimed.key, one_line_error(error)),
            )
        pause = min(BUSY_PAUSE * 2.0 ** min(self._given_up, 10), LONGEST_BUSY_PAUSE)
        self._given_up += 1
        await self.rest(pause)

    async def rest(self, seconds: float) -> None:
        """Sleep; where the worker is to stop, leave the saga to another one instead.

        Raises:
            Suspended: it is left.
        """
        if await until_set(self._state.hurry, seconds):
            self._state.suspend("the worker is stopping")
        self._state.stop_if_suspended()

    async def had_to_wait(self) -> bool:
        """Whether the database was away just now; it is back when this returns."""
        was_away = False
        while True:
            try:
                await self._threads.run(sql.run, "SELECT 1", [])
            except AWAY as error:
                was_away = True
                await self.pause(error)
            else:
                self._outage.over()
                return was_away
