"""Pause between attempts while a server is away, and log how long the outage lasts."""

import logging
import random
import time
from collections.abc import Callable

from saga_runtime.backoff import Backoff
from saga_runtime.logs import VisibleLogger
from saga_runtime.text import one_line, one_line_error

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
REPORT_EVERY = 10.0


class ServerUnusable(Exception):  # noqa: N818 - states the fact
    """Base of the errors of a server that answers, but must be mended by a person first."""


class Outage:
    """Log one server's outages and give the pauses between attempts.

    Call `failed()` after each failure and `over()` after each success; `count` is the number of
    outages so far. A server that answers, but must be mended by a person first, is logged as such
    and not counted.

    Args:
        what: the server, as the log shall name it.
        backoff: the pauses between two attempts; by default 0.2 s at first, and at most 5 s.
        clock: seconds.
        jitter: random numbers from 0 to 1; they scale a pause between a half and the whole.
    """

    def __init__(
        self,
        what: str,
        *,
        logger: logging.Logger | VisibleLogger,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        backoff: Backoff | None = None,
    ) -> None:
        self._what = what
        self._logger = logger
        self._clock = clock
        self._jitter = jitter
        self._backoff = backoff or Backoff(first=2 * FIRST_PAUSE, longest=LONGEST_PAUSE)
        self._began: float | None = None
        self._reported = 0.0
        self._failures = 0
        self._answers = False
        self.count = 0

    @property
    def going_on(self) -> bool:
        """Tell whether the last attempt failed."""
        return self._began is not None

    def failed(self, error: BaseException | str, *, answers: bool = False) -> float:
        """Note a failure; return the seconds to pause: exponential with jitter.

        Args:
            error: the raised error, or its text.
            answers: the server does answer, and time alone will not help.
        """
        now = self._clock()
        answers = answers or isinstance(error, ServerUnusable)
        if self._began is None or answers != self._answers:
            self._began = self._reported = now
            self._answers = answers
            self.count += not answers
            state = "answers, but cannot be used like this" if answers else "does not answer"
            self._say(f"{state}, trying on", error)
        elif now - self._reported >= REPORT_EVERY:
            self._reported = now
            state = "could not be used" if answers else "has not answered"
            self._say(f"{state} for {now - self._began:.0f} s, trying on", error)
        self._failures += 1
        return self._backoff.pause(self._failures) * (0.5 + self._jitter() / 2)

    def over(self) -> None:
        """Note a success."""
        if self._began is not None:
            away = self._clock() - self._began
            state = "can be used again" if self._answers else "answers again"
            self._logger.warning("%s %s after %.1f s", self._what, state, away)
        self._began = None
        self._failures = 0

    def _say(self, state: str, error: BaseException | str) -> None:
        level = logging.ERROR if self._answers else logging.WARNING
        reason = one_line(error) if isinstance(error, str) else one_line_error(error)
        self._logger.log(level, "%s %s: %s", self._what, state, reason)
