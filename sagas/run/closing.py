"""The end of a saga of which its app wants to be told: tried again, but not for ever.

What our own database being away costs a hook is no try of it. But a hook's own statement may fail
like that each time although our database answers: it asks a foreign server that is away, or waits
for a lock that nobody lets go. That is excused for a number of tries and a time.
"""

import time
from collections.abc import Collection

from saga_runtime.logs import get_logger
from saga_runtime.text import one_line
from sagas.definition.hooks import SagaOutcome
from sagas.errors import HookFailed
from sagas.failures import stand_in
from sagas.journal import final_transaction
from sagas.journal.records import Claimed
from sagas.run.attempts import backoff
from sagas.run.journal_writer import Writer

logger = get_logger(__name__)

HOOK_ATTEMPTS = 5
MOST_EXCUSED = 5
PATIENCE = 30.0
"""Seconds from the first excused try on in which more are excused, however many there were."""


class Closing:
    """Writes the last transaction of one saga, with its hook."""

    def __init__(self, claimed: Claimed, writer: Writer) -> None:
        self._claimed = claimed
        self._writer = writer
        self._excused = 0
        self._since = 0.0

    async def finish(self, outcome: SagaOutcome, *, steps: Collection[str]) -> str:
        """Complete it or roll it back.

        Returns:
            Why its hook keeps failing: nothing is written then. Empty where it has ended.

        Raises:
            LeaseLost, CancelRequested, EndRefused, Suspended: nothing is written.
        """
        failures = 0
        while (error := await self._try(outcome, steps)) is not None:
            if await self._is_excused(error, "on_finish"):
                continue
            failures += 1
            logger.error(
                "%s %s: its on_finish hook failed (%d of %d)",
                *(self._claimed.name, self._claimed.key, failures, HOOK_ATTEMPTS),
                exc_info=stand_in(error.__cause__ or error),
            )
            if failures == HOOK_ATTEMPTS:
                return str(error)
            await self._writer.rest(backoff(failures))
        return ""

    async def park(self, outcome: SagaOutcome, *, with_hook: bool = True) -> None:
        """Park it, in the end without its hook.

        Args:
            with_hook: call its app's function; not where that has cost workers.

        Raises:
            LeaseLost, Suspended: nothing is written.
        """
        cause: BaseException | None = None
        while with_hook:
            error = await self._try(outcome, ())
            if error is None:
                return
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

    async def _try(self, outcome: SagaOutcome, steps: Collection[str]) -> HookFailed | None:
        try:
            await self._writer.call_at_the_end(
                final_transaction.finish, self._claimed, outcome, steps=steps
            )
        except HookFailed as error:
            return error
        return None

    async def _is_excused(self, error: HookFailed, hook: str) -> bool:
        """Whether our database may have been to blame; it answers when this returns."""
        if not error.may_pass:
            return False
        if await self._writer.had_to_wait():
            self._excused = 0
            return True
        now = time.monotonic()
        self._since = self._since if self._excused else now
        if self._excused >= MOST_EXCUSED and now - self._since >= PATIENCE:
            return False
        self._excused += 1
        logger.warning(
            "%s %s: the database answers, but not what its %s hook asks (try %d), trying again: %s",
            *(self._claimed.name, self._claimed.key, hook, self._excused, one_line(str(error))),
        )
        await self._writer.rest(backoff(self._excused))
        return True
