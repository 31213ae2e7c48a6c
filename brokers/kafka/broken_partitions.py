"""Partitions that stand still because what comes next in them cannot be read."""

import time
from collections.abc import Callable, Collection

from saga_runtime.logs import get_logger

Place = tuple[str, int]
"""A topic, by its name on the servers, and a partition of it."""

SHORTEST_PAUSE = 2.0
LONGEST_PAUSE = 60.0
WHAT_TO_DO = (
    "nothing behind it is read until it can be: install what is missing, or have the partition "
    "mended; the others go on"
)

logger = get_logger(__name__)


class BrokenPartitions:
    """Those that wait. A pause is twice as long as the one before it at the same offset."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[Place, float] = {}
        self._last: dict[Place, tuple[int, float]] = {}

    def add(self, place: Place, offset: int, reason: str) -> None:
        """Let a partition wait, and say so."""
        at, last = self._last.get(place, (-1, 0.0))
        pause = min(2 * last, LONGEST_PAUSE) if at == offset else SHORTEST_PAUSE
        self._last[place] = offset, pause
        self._until[place] = self._clock() + pause
        logger.error(
            "%s/%s/%s cannot be read, trying again in %.0f s: %s: %s",
            *place,
            offset,
            pause,
            reason,
            WHAT_TO_DO,
        )

    def due(self) -> Collection[Place]:
        """Take out those whose time has come to be tried again."""
        if not self._until:
            return ()
        now = self._clock()
        due = [place for place, until in self._until.items() if until <= now]
        for place in due:
            del self._until[place]
        return due
