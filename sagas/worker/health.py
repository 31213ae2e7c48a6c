"""Tell whether a worker's steps can still call anything."""

import time
from collections.abc import Callable

from saga_runtime.abandoned_calls import AbandonedCalls
from saga_runtime.database_threads import Threads
from saga_runtime.logs import get_logger

logger = get_logger(__name__)

MOST_NAMED = 5
"""Steps in the line that tells what hangs."""


class Health:
    """Watch the threads of one worker.

    A worker of which every thread is stuck hands over what it runs, claims nothing, and shows no
    sign of life; after a while it ends.

    Args:
        journal: threads for local steps.
        calls: threads for `call_in_thread`.
        abandoned_calls: those that did not heed their cancel.
        most_abandoned: so many of them are as bad as threads that are stuck.
        patience: seconds that an unwell worker waits for a call to come back.
        clock: seconds, as `time.monotonic()`.
    """

    def __init__(
        self,
        *,
        journal: Threads,
        calls: Threads,
        abandoned_calls: AbandonedCalls,
        most_abandoned: int,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._calls = calls
        self._abandoned_calls = abandoned_calls
        self._most_abandoned = most_abandoned
        self._patience = patience
        self._clock = clock
        self._unwell_since: float | None = None

    def is_unwell(self) -> bool:
        """Tell whether no step can call anything any more; says so in the log when that changes."""
        if not self.is_exhausted:
            if self._unwell_since is not None:
                logger.warning("a call has come back: this worker claims sagas again")
            self._unwell_since = None
            return False
        if self._unwell_since is None:
            self._unwell_since = self._clock()
            logger.error(
                "this worker is unwell and hands its sagas over: %s. It ends in %.0f s if no call "
                "comes back. Give what these steps call a timeout of its own",
                *(self.describe_stuck(), self._patience),
            )
        # What runs is let fail or end: a step that has timed out must have spent its retry, or it
        # would go from worker to worker. One that needs a thread is left.
        self._calls.refuse_waiting()
        self._journal.refuse_waiting()
        return True

    @property
    def is_exhausted(self) -> bool:
        """Whether every thread of a kind is stuck, or as many calls are left behind."""
        too_many_abandoned = len(self._abandoned_calls.steps) >= self._most_abandoned
        return self._journal.is_exhausted or self._calls.is_exhausted or too_many_abandoned

    @property
    def is_hopeless(self) -> bool:
        """Whether the worker has been unwell for too long."""
        since = self._unwell_since
        return since is not None and self._clock() - since >= self._patience

    def describe_stuck(self) -> str:
        """Name the steps of which the calls do not come back, for people."""
        steps = [*self._journal.stuck, *self._calls.stuck, *self._abandoned_calls.steps]
        more = f" and {len(steps) - MOST_NAMED} more" if len(steps) > MOST_NAMED else ""
        return f"what these steps call does not come back: {'; '.join(steps[:MOST_NAMED])}{more}"
