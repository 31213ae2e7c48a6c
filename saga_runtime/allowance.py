"""Count the time of a step, which stands still while the step waits for a thread."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_EVERY = 0.05  # seconds between two looks at an allowance that stands still


class Allowance:
    """Count a step's seconds.

    Args:
        seconds: for the step; None for no limit.
        at_most: seconds until the saga's deadline, which never stands still; None without one.
    """

    def __init__(
        self,
        seconds: float | None,
        *,
        at_most: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        now = self._began = clock()
        self._ends_at = None if at_most is None else now + at_most
        self._waits = 0
        self._waits_since = 0.0
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let no time pass until the block ends. Several may wait at once."""
        if not self._waits:
            self._waits_since = self._clock()
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1
            if not self._waits:
                self._waited += self._clock() - self._waits_since

    def left(self) -> float | None:
        """Return the remaining seconds, 0 or less when the time is up; None without a limit."""
        now = self._clock()
        lefts = []
        if self._seconds is not None:
            until = self._waits_since if self._waits else now
            lefts.append(self._seconds - (until - self._began - self._waited))
        if self._ends_at is not None:
            lefts.append(self._ends_at - now)
        return min(lefts, default=None)

    def pause(self) -> float | None:
        """Return the seconds until the next look at whether the time is up."""
        left = self.left()
        if left is None or not self._waits:
            return left
        return max(LOOK_EVERY, left)
