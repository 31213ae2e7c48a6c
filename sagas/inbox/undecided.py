"""Limit how often a command is received again because its trigger cannot ask our database.

Where a trigger's query to our own database fails as in an outage, the command is received again:
nothing is refused because the database is away or overloaded. But a query that fails each time
(because it always takes too long, or asks a foreign server that is away) would hold its partition
for ever. So such a command has a number of tries and a time; when both are spent, the command is
refused and kept.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from django.db import Error, connection

from brokers import Record
from saga_runtime.backoff import Backoff

MOST_TRIES = 5
PATIENCE = 30.0
"""Seconds after its first try before a command may be refused, after any number of tries."""
BACKOFF = Backoff(first=0.5, longest=10.0)
_MOST_KNOWN = 1_000


class CommandUndecided(Exception):  # noqa: N818 - states the fact
    """Raised for a command to receive again, because the trigger's query fails.

    Our database answers a simple query, so there is no outage.

    Attributes:
        pause: seconds to wait before receiving again.
    """

    def __init__(self, text: str, *, pause: float) -> None:
        super().__init__(text)
        self.pause = pause


@dataclass(slots=True)
class _Tried:
    times: int
    since: float


class Undecided:
    """Remember the tries of commands that cannot be judged, for a single consumer.

    Args:
        most_tries: tries after which a command is refused.
        patience: seconds since the first try before which no command is refused.
        backoff: the pauses before a command is received again.
        clock: a clock of seconds that only rise.
    """

    def __init__(
        self,
        *,
        most_tries: int = MOST_TRIES,
        patience: float = PATIENCE,
        backoff: Backoff = BACKOFF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_tries = most_tries
        self._patience = patience
        self._clock = clock
        self._backoff = backoff
        self._tried: dict[str, _Tried] = {}

    def check(self, record: Record, error: Error, text: str) -> None:
        """Note one more try of a command; return where the command is to be refused.

        Args:
            record: the command.
            error: what our database raised; raised again where the database does not answer.
            text: the error for people.

        Raises:
            CommandUndecided: the command is to be tried again.
            Error: the database is away.
        """
        if not _answers():
            raise error from error.__cause__
        if len(self._tried) >= _MOST_KNOWN:  # the oldest were decided long ago
            del self._tried[next(iter(self._tried))]
        tried = self._tried.setdefault(record.place, _Tried(0, self._clock()))
        tried.times += 1
        is_early = self._clock() - tried.since < self._patience
        if tried.times < self._most_tries or is_early:
            raise CommandUndecided(
                f"{record.place} is received again (try "
                f"{tried.times}): the database answers, but not what the command's trigger asks: "
                f"{text}",
                pause=self._backoff.pause(tried.times),
            ) from error
        del self._tried[record.place]


def _answers() -> bool:
    """Query our database on a new connection: the old connection may be broken."""
    if not connection.in_atomic_block:
        connection.close()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        return False
    return True
