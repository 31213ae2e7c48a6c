"""Messages that were refused together with others. Each is sent again alone, with nothing else
under way, and only then judged. Between two rounds of that, the other lanes have their turn."""

import time
from collections.abc import Callable, Collection, Iterable

from relay.rows import Row

ROUND = 0.25  # seconds that one round of judging takes, and the pause after it


class Suspects:
    """A message is one until its row has left the outbox."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lanes: dict[int, int] = {}
        self._round_ends = 0.0
        self._next_round = 0.0
        self.alone: int | None = None
        """The one that is under way alone."""

    def __bool__(self) -> bool:
        return bool(self._lanes)

    @property
    def ids(self) -> Collection[int]:
        return self._lanes.keys()

    @property
    def lanes(self) -> set[int]:
        """Their lanes, in which nothing else may be sent."""
        return set(self._lanes.values())

    def add(self, rows: Iterable[Row]) -> None:
        self._lanes.update({row.id: row.lane for row in rows})

    def drop(self, *, lanes: Collection[int]) -> None:
        """None in these lanes is a suspect any more: they are empty of them, or another relay's."""
        self._lanes = {token: lane for token, lane in self._lanes.items() if lane not in lanes}

    def is_turn(self) -> bool:
        """Whether it is time to send them, rather than anything else."""
        if not self._lanes:
            return False
        now = self._clock()
        if self.alone is None and self._round_ends <= now:
            if now < self._next_round:
                return False
            self._round_ends, self._next_round = now + ROUND, now + 2 * ROUND
        return True
