"""Wait in a run: while the database is away, while the saga's row is held, between attempts.

Every wait of a run goes through `Patience.sleep`, so that a stopping worker waits for no saga.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from saga_runtime.database_errors import AWAY, keeps_waiting
from saga_runtime.database_threads import Threads
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage
from saga_runtime.text import one_line_error
from saga_runtime.waits import until_set
from sagas.journal import sql
from sagas.run.state import RunState
from sagas.run.timing import Timing

logger = get_logger(__name__)

WARN_EVERY = 10
"""Statements given up by the database, between two log lines."""

R = TypeVar("R")


class Patience:
    """Let a run wait for the database.

    Args:
        state: of the run; the event `hurry` ends every wait.
        threads: to ask the database in.
        timing: how long the pauses are.
    """

    def __init__(self, state: RunState, *, threads: Threads, timing: Timing) -> None:
        self._state = state
        self._threads = threads
        self._timing = timing
        self._outage = Outage("the database", logger=logger, backoff=timing.outage)
        self._given_up = 0

    async def sleep(self, seconds: float) -> None:
        """Sleep; where the worker is to stop, leave the saga to the next worker instead.

        Raises:
            Suspended: the saga is left.
        """
        if await until_set(self._state.hurry, seconds):
            self._state.suspend("the worker is stopping")
        self._state.stop_if_suspended()

    async def wait_out_outage(self, error: Exception) -> None:
        """Pause after an error of an absent database.

        Raises:
            Suspended: the worker is to stop.
        """
        await self.sleep(self._outage.failed(error))

    async def wait_for_row(self, error: Exception) -> None:
        """Pause where our database answers, and has given up a statement of the journal.

        The saga's row is held, or the database overloaded: nothing against the step.

        Raises:
            Suspended: the worker is to stop.
        """
        if self._given_up % WARN_EVERY == 0:
            logger.warning(
                "%s %s: the database gives up what the journal asks, trying on. Does somebody hold "
                "the saga's row? %s",
                *(self._state.claimed.name, self._state.claimed.key, one_line_error(error)),
            )
        self._given_up += 1
        await self.sleep(self._timing.busy.pause(self._given_up))

    async def wait_for_writer(self) -> None:
        """Pause where another transaction held the saga's row.

        Raises:
            Suspended: the worker is to stop.
        """
        await self.sleep(self._timing.busy.first)

    def note_answer(self) -> None:
        """Note an answer of the database, so that the next pause is short again."""
        self._outage.over()
        self._given_up = 0

    async def until_it_answers(self, call: Callable[[], Awaitable[R]]) -> R:
        """Call, and again for as long as the database is away or the saga's row is held.

        Args:
            call: makes the awaitable anew for each try.

        Returns:
            The result of the first call with an answer.

        Raises:
            Suspended: the worker is to stop.
        """
        while True:
            try:
                result = await call()
            except AWAY as error:
                # A statement that was given up tells that the database answers.
                await (self.wait_for_row if keeps_waiting(error) else self.wait_out_outage)(error)
            else:
                self.note_answer()
                return result

    async def was_away(self) -> bool:
        """Tell whether the database is away, and return only when the database answers.

        Raises:
            Suspended: the worker is to stop.
        """
        was_away = False
        while True:
            try:
                await self._threads.run(sql.run, "SELECT 1", [])
            except AWAY as error:
                was_away = True
                await self.wait_out_outage(error)
            else:
                self._outage.over()
                return was_away
