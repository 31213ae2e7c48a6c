"""Report now and then the parts for which a starting process waits."""

import time
from collections.abc import Callable, Sequence

EVERY = 5.0  # seconds


class SignsOfLife:
    """Report every few seconds the parts still waited for, and the seconds waited so far.

    Args:
        say: prints one line.
        clock: seconds, as `time.monotonic()`.
    """

    def __init__(
        self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self._began = self._said = clock()

    def waiting_for(self, parts: Sequence[str]) -> None:
        """Note the parts still waited for; to be called in each round of the wait."""
        now = self._clock()
        if now - self._said >= EVERY:
            self._said = now
            self._say(f"waiting for {', '.join(parts)} ({now - self._began:.0f} s)")
