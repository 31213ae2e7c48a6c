"""End a saga with the app's hook, or park the saga: tried again, but not for ever.

An outage of our own database costs a hook no try. But a hook's statement may fail in the same way
each time although our database answers: a foreign server is away, or a lock is never released.
Such a failure is excused for a number of tries and a time.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from saga_runtime.logs import get_logger
from saga_runtime.text import one_line
from sagas.definition.hooks import SagaOutcome
from sagas.errors import CancelRequested, EndRefused, HookFailed, Suspended
from sagas.failures import stand_in
from sagas.journal import final_transaction, lookups
from sagas.journal.entries import Cancelled, Refused, Written
from sagas.journal.records import Claimed
from sagas.run.journal_writer import Answer, JournalWriter
from sagas.run.patience import Patience
from sagas.run.resources import RunResources
from sagas.run.state import RunState

logger = get_logger(__name__)

HOOK_ATTEMPTS = 5
MOST_EXCUSED = 5
"""Tries in a row to excuse, however long they take."""


@dataclass(frozen=True, slots=True)
class HookKeepsFailing:
    """Say that a saga has not ended, for its hook has failed each time.

    Attributes:
        reason: the last failure, for people.
    """

    reason: str


class Closing:
    """Write the last transaction of a saga, with the app's hook.

    Args:
        claimed: the saga.
        writer: calls the hook in a thread.
        patience: waits for the database, and between two tries.
        resources: of the worker.
        clock: seconds, as `time.monotonic()`.
    """

    def __init__(
        self,
        claimed: Claimed,
        writer: JournalWriter,
        patience: Patience,
        resources: RunResources,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._claimed = claimed
        self._writer = writer
        self._patience = patience
        self._resources = resources
        self._clock = clock
        self._excused = 0
        self._excused_since = 0.0

    async def finish(
        self, outcome: SagaOutcome, *, steps: Collection[str]
    ) -> Answer | HookKeepsFailing:
        """Complete the saga, or roll the saga back, as the outcome says.

        Args:
            outcome: for the hook.
            steps: the names of all forward steps.

        Returns:
            Whether the end is written.

        Raises:
            Suspended: nothing is written.
        """
        failures = 0
        while isinstance(error := await self._try(outcome, steps), HookFailed):
            if await self._is_excused(error, "on_finish"):
                continue
            failures += 1
            logger.error(
                "%s %s: its on_finish hook failed (%d of %d)",
                *(self._claimed.name, self._claimed.key, failures, HOOK_ATTEMPTS),
                exc_info=stand_in(error.__cause__ or error),
            )
            if failures == HOOK_ATTEMPTS:
                return HookKeepsFailing(str(error))
            await self._patience.sleep(self._resources.retry_pause(failures))
        return error

    async def park(self, outcome: SagaOutcome, *, with_hook: bool = True) -> None:
        """Park the saga, at last without the hook.

        Args:
            outcome: for the hook.
            with_hook: call the app's hook; leave the hook out where hooks have cost workers.

        Raises:
            Suspended: nothing is written.
        """
        cause: BaseException | None = None
        while with_hook:
            error = await self._try(outcome, ())
            if isinstance(error, Refused):
                raise Suspended("the journal does not let the saga park from its status")
            if not isinstance(error, HookFailed):
                return
            # A hook that raises has parked the saga already. This one the commit has refused, or
            # our database may have failed.
            with_hook = await self._is_excused(error, "on_park")
            cause = stand_in(error.__cause__ or error)
        logger.error(
            "%s %s: it is parked without its on_park hook, which keeps failing or hangs",
            *(self._claimed.name, self._claimed.key),
            exc_info=cause,
        )
        await self._writer.call(
            final_transaction.finish, self._claimed, outcome, steps=(), with_hook=False
        )

    async def _try(self, outcome: SagaOutcome, steps: Collection[str]) -> Answer | HookFailed:
        """Write the last transaction once; whatever refuses it has rolled it back."""
        try:
            await self._writer.call_at_the_end(
                final_transaction.finish, self._claimed, outcome, steps=steps
            )
        except HookFailed as error:
            return error
        except EndRefused:
            return Refused()
        except CancelRequested:
            return Cancelled(await self._writer.call(lookups.cancel_reason, self._claimed))
        return Written()

    async def _is_excused(self, error: HookFailed, hook: str) -> bool:
        """Tell whether our database may be to blame, and return only when the database answers."""
        if not error.may_pass:
            return False
        # An outage, by now logged and waited out: it costs the hook no try.
        if await self._patience.was_away():
            self._excused = 0
            return True
        now = self._clock()
        self._excused_since = self._excused_since if self._excused else now
        is_long = now - self._excused_since >= self._resources.timing.hook_excuse
        # Both are to be spent: in a short overload the tries pass quickly, and few fit a long one.
        if self._excused >= MOST_EXCUSED and is_long:
            return False
        self._excused += 1
        logger.warning(
            "%s %s: the database answers, but not what its %s hook asks (try %d), trying again: %s",
            *(self._claimed.name, self._claimed.key, hook, self._excused, one_line(str(error))),
        )
        await self._patience.sleep(self._resources.retry_pause(self._excused))
        return True


class Parking:
    """Park a saga, under a state apart: the run's own state may be suspended by then.

    Args:
        claimed: the saga.
        resources: of the worker.
    """

    def __init__(self, claimed: Claimed, resources: RunResources) -> None:
        self._claimed = claimed
        self._resources = resources
        self._state = RunState(claimed)

    @property
    def hangs(self) -> bool:
        """Tell whether the hook hangs, and may still commit."""
        return self._state.hangs

    def hurry(self) -> None:
        """End every wait, and leave the saga to the next worker."""
        self._state.hurry.set()

    async def park(self, outcome: SagaOutcome, *, with_hook: bool = True) -> None:
        """Park the saga.

        Args:
            outcome: for the hook.
            with_hook: call the hook.

        Raises:
            Suspended: nothing is written.
        """
        patience = Patience(
            self._state, threads=self._resources.journal, timing=self._resources.timing
        )
        writer = JournalWriter(self._state, patience, self._resources)
        closing = Closing(self._claimed, writer, patience, self._resources)
        await closing.park(outcome, with_hook=with_hook)
