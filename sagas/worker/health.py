"""Tell whether a worker's steps can still call anything."""

import time
from collections.abc import Callable

from saga_runtime.abandoned_calls import AbandonedCalls
from saga_runtime.database_threads import Threads
from saga_runtime.logs import get_logger

logger = get_logger(__name__)

MOST_NAMED = 5
"""Steps to name in the line about hanging calls."""


class Health:
    """Watch the threads of a worker.

    A worker without a free thread hands all sagas over, claims nothing, and shows no
    sign of life; after a while the worker ends.

    Args:
        journal: threads for local steps.
        calls: threads for `call_in_thread`.
        abandoned_calls: calls that have ignored their cancels.
        most_abandoned: as many abandoned calls are as bad as stuck threads.
        patience: seconds that an unwell worker waits for a call to return.
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
        """Tell whether no step can call anything any more; log each change."""
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
        """Tell whether every thread of a kind is stuck, or as many calls are left behind."""
        too_many_abandoned = len(self._abandoned_calls.steps) >= self._most_abandoned
        return self._journal.is_exhausted or self._calls.is_exhausted or too_many_abandoned

    @property
    def is_hopeless(self) -> bool:
        """Tell whether the worker has been unwell for too long."""
        since = self._unwell_since
        return since is not None and self._clock() - since >= self._patience

    def describe_stuck(self) -> str:
        """Name the steps of the stuck calls, for people."""
        steps = [*self._journal.stuck, *self._calls.stuck, *self._abandoned_calls.steps]
        more = f" and {len(steps) - MOST_NAMED} more" if len(steps) > MOST_NAMED else ""
        return f"what these steps call does not come back: {'; '.join(steps[:MOST_NAMED])}{more}"
