"""While a server is away: how long to pause before the next try, and what to say meanwhile."""

import logging
import random
import time
from collections.abc import Callable

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
REPORT_EVERY = 10.0


class Outage:
    """Tells of one server's outages. `failed()` after each failure, `over()` after each success;
    `count` is how many there have been."""

    def __init__(
        self,
        what: str,
        *,
        logger: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._what = what
        self._logger = logger
        self._clock = clock
        self._jitter = jitter
        self._began: float | None = None
        self._reported = 0.0
        self._failures = 0
        self.count = 0

    @property
    def going_on(self) -> bool:
        return self._began is not None

    def failed(self, error: BaseException | str) -> float:
        """Note a failure; returns the seconds to pause: exponential with jitter, at most 5."""
        now = self._clock()
        if self._began is None:
            self._began = self._reported = now
            self.count += 1
            self._logger.warning("%s does not answer, trying on: %s", self._what, _flat(error))
        elif now - self._reported >= REPORT_EVERY:
            self._reported = now
            away = now - self._began
            self._logger.warning(
                "%s has not answered for %.0f s, trying on: %s", self._what, away, _flat(error)
            )
        self._failures += 1
        longest = min(FIRST_PAUSE * 2.0 ** min(self._failures, 10), LONGEST_PAUSE)
        return longest * (0.5 + self._jitter() / 2)

    def over(self) -> None:
        """Note a success."""
        if self._began is not None:
            away = self._clock() - self._began
            self._logger.warning("%s answers again after %.1f s", self._what, away)
        self._began = None
        self._failures = 0


def _flat(error: BaseException | str) -> str:
    return " ".join(str(error).split())
