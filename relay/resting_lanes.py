"""Lanes that wait, because the broker does not take one of their messages now, though it takes
others: it knows no such topic yet, or does not let us see it."""

import time
from collections.abc import Callable

from saga_runtime.logs import get_logger

logger = get_logger(__name__)

SHORTEST_REST = 0.3
LONGEST_REST = 30.0


class Rests:
    """A lane's rest is twice as long as the one before, where that is not long ago."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[int, tuple[float, float]] = {}

    @property
    def lanes(self) -> set[int]:
        """Those that wait now."""
        if not self._until:
            return set()
        now = self._clock()
        return {lane for lane, (until, _) in self._until.items() if now < until}

    def add(self, lane: int, reason: str) -> None:
        now = self._clock()
        until, last = self._until.get(lane, (0.0, 0.0))
        is_recent = now - until < last
        rest = min(2 * last, LONGEST_REST) if is_recent else SHORTEST_REST
        self._until[lane] = now + rest, rest
        logger.warning("lane %d waits %.1f s: %s", lane, rest, reason)
