"""How a run writes to the journal: again while the database is away, and heeding the verdict."""

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from brokers.outage import Outage
from outbox.away import AWAY
from sagas import sql
from sagas.errors import CancelRequested, LeaseLost
from sagas.group import GroupCommit
from sagas.journal import Change, Entry, StepEntry
from sagas.outages import is_conflict, is_outage
from sagas.state import RunState
from sagas.threads import Threads
from sagas.waits import until_set

logger = logging.getLogger(__name__)

BUSY_PAUSE = 0.02  # seconds; a cancel or a person holds a saga's row for no longer

P = ParamSpec("P")
R = TypeVar("R")


class Writer:
    """Writes what happens in one run."""

    def __init__(self, state: RunState, *, group: GroupCommit, threads: Threads) -> None:
        self._state = state
        self._group = group
        self._threads = threads
        self._outage = Outage("the database", logger=logger)

    async def write(
        self, *changes: Change, step: StepEntry | None = None, unless_cancelled: bool = False
    ) -> None:
        """Write an entry; a cancel that waits is noted in the run's state.

        Raises:
            LeaseLost: it is not written, the saga is another worker's.
            CancelRequested: it is not written, where `unless_cancelled`.
            Suspended: nobody knows; the database is away, and the worker stopping.
        """
        entry = Entry(
            saga=self._state.claimed, step=step, changes=changes, unless_cancelled=unless_cancelled
        )
        while True:
            try:
                verdict = await self._group.write(entry)
            except AWAY as error:
                if not (is_outage(error) or is_conflict(error)):
                    raise
                await self.pause(error)
                continue
            self._outage.over()
            if verdict.is_busy:
                await self.rest(BUSY_PAUSE)
                continue
            self._state.note_cancel(verdict.cancel_reason)
            if verdict.is_written:
                return
            if verdict.cancel_reason:
                raise CancelRequested
            saga = self._state.claimed
            raise LeaseLost(f"{saga.name} {saga.key} was taken over by another worker")

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call something that may be called again in a thread, while the database is away too."""
        while True:
            try:
                result = await self._threads.run(function, *args, **kwargs)
            except AWAY as error:
                await self.pause(error)
            else:
                self._outage.over()
                return result

    async def call_once(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._threads.run(function, *args, **kwargs)

    async def pause(self, error: Exception) -> None:
        """The database is away."""
        await self.rest(self._outage.failed(error))

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
