"""Let partitions wait in which the next record cannot be read."""

import time
from collections.abc import Callable, Collection

from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming
from saga_runtime.logs import get_logger

Place = tuple[str, int]
"""A topic, by its name on the servers, and the number of a partition."""

WHAT_TO_DO = (
    "nothing behind it is read until it can be: install what is missing, or have the partition "
    "mended; the others go on"
)

logger = get_logger(__name__)


class BrokenPartitions:
    """Remember which partitions wait, and until when.

    The pause grows with each failure at one offset, as `KafkaTiming.retry` says.
    """

    def __init__(
        self,
        timing: KafkaTiming = DEFAULT_TIMING,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timing = timing
        self._clock = clock
        self._until: dict[Place, float] = {}
        self._failures: dict[Place, tuple[int, int]] = {}  # an offset, and how often it failed

    def add(self, place: Place, offset: int, reason: str) -> None:
        """Let a partition wait, and log an error with the reason.

        Args:
            place: the partition.
            offset: where reading failed.
            reason: the client's error, on one line.
        """
        failed_at, before = self._failures.get(place, (offset, 0))
        failures = before + 1 if failed_at == offset else 1
        self._failures[place] = offset, failures
        pause = self._timing.retry.pause(failures)
        self._until[place] = self._clock() + pause
        logger.error(
            "%s/%s/%s cannot be read, trying again in %.0f s: %s: %s",
            *place,
            offset,
            pause,
            reason,
            WHAT_TO_DO,
        )

    def pop_due(self) -> Collection[Place]:
        """Take out the partitions whose pause is over."""
        if not self._until:
            return ()
        now = self._clock()
        due = [place for place, until in self._until.items() if until <= now]
        for place in due:
            del self._until[place]
        return due
