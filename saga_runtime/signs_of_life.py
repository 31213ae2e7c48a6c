"""Say now and then what a process waits for while it starts."""

import time
from collections.abc import Callable, Sequence

EVERY = 5.0  # seconds


class SignsOfLife:
    """Say every few seconds which parts are waited for, and for how long already.

    Args:
        say: prints one line.
        clock: seconds that only rise.
    """

    def __init__(
        self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self._began = self._said = clock()

    def waiting_for(self, parts: Sequence[str]) -> None:
        """Note which parts are waited for; to be called in each round of the wait."""
        now = self._clock()
        if now - self._said >= EVERY:
            self._said = now
            self._say(f"waiting for {', '.join(parts)} ({now - self._began:.0f} s)")
