"""Lanes that wait, because the broker does not take one of their messages now, though it takes
others: it knows no such topic yet, or does not let us see it."""

import time
from collections.abc import Callable
from typing import NamedTuple

from relay.timing import POSTGRESQL_TIMING
from saga_runtime.backoff import Backoff
from saga_runtime.logs import get_logger

logger = get_logger(__name__)


class _Rest(NamedTuple):
    """A lane's latest rest: when it ends, by the clock, how long it is, and the how many-th since
    the lane last worked."""

    ends: float
    seconds: float
    in_a_row: int


class Rests:
    """A lane's rest is twice as long as the one before, where that is not long ago."""

    def __init__(
        self,
        *,
        backoff: Backoff = POSTGRESQL_TIMING.lane_rest,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backoff = backoff
        self._clock = clock
        self._rests: dict[int, _Rest] = {}

    @property
    def lanes(self) -> set[int]:
        """Those that wait now."""
        if not self._rests:
            return set()
        now = self._clock()
        return {lane for lane, rest in self._rests.items() if now < rest.ends}

    def add(self, lane: int, reason: str) -> None:
        now = self._clock()
        last = self._rests.get(lane)
        is_recent = last is not None and now - last.ends < last.seconds
        in_a_row = last.in_a_row + 1 if last is not None and is_recent else 1
        seconds = self._backoff.pause(in_a_row)
        self._rests[lane] = _Rest(now + seconds, seconds, in_a_row)
        logger.warning("lane %d waits %.1f s: %s", lane, seconds, reason)
