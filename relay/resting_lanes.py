"""Let lanes rest while the broker does not take a message of the lane.

The broker is there and takes messages of further lanes: perhaps a topic is not known there yet, or
not shown to us.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from relay.timing import POSTGRESQL_TIMING
from saga_runtime.backoff import Backoff
from saga_runtime.logs import get_logger

logger = get_logger(__name__)


class _Rest(NamedTuple):
    """Hold a lane's latest rest.

    Attributes:
        ends: by the clock.
        seconds: the length.
        in_a_row: 1 for the first since the lane has worked.
    """

    ends: float
    seconds: float
    in_a_row: int


class RestingLanes:
    """Let lanes rest, each longer where the last rest has just ended.

    Args:
        backoff: the length of the rests.
        clock: seconds.
    """

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
        """Return the lanes at rest now."""
        if not self._rests:
            return set()
        now = self._clock()
        return {lane for lane, rest in self._rests.items() if now < rest.ends}

    def add(self, lane: int, reason: str) -> None:
        """Let a lane rest from now on, and log the broker's reason."""
        now = self._clock()
        last = self._rests.get(lane)
        # A lane that has worked for as long as it had rested begins anew.
        is_recent = last is not None and now - last.ends < last.seconds
        in_a_row = last.in_a_row + 1 if last is not None and is_recent else 1
        seconds = self._backoff.pause(in_a_row)
        self._rests[lane] = _Rest(now + seconds, seconds, in_a_row)
        logger.warning("lane %d waits %.1f s: %s", lane, seconds, reason)
