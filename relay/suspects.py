"""Keep messages that were refused together with other messages.

Each message is sent again alone, with nothing else in flight, and only then judged. Between two
rounds of judging the rest of the lanes has a turn.
"""

import time
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from relay.store import Row
from relay.timing import POSTGRESQL_TIMING


class _Place(NamedTuple):
    """Hold lane and key of a suspect."""

    lane: int
    key: str


class Suspects:
    """Keep the suspected messages until their rows have left the outbox.

    Args:
        round_seconds: how long a round of judging takes, and the pause after the round.
        clock: seconds.

    Attributes:
        alone: the id of the suspect in flight alone, if any.
    """

    def __init__(
        self,
        *,
        round_seconds: float = POSTGRESQL_TIMING.suspects_round,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._round_seconds = round_seconds
        self._clock = clock
        self._places: dict[int, _Place] = {}
        self._round_ends = 0.0
        self._next_round = 0.0
        self.alone: int | None = None

    def __bool__(self) -> bool:
        return bool(self._places)

    @property
    def ids(self) -> Collection[int]:
        """Return the ids of the suspects."""
        return self._places.keys()

    @property
    def lanes(self) -> set[int]:
        """Return the suspects' lanes, in which nothing else may be sent."""
        return {place.lane for place in self._places.values()}

    def add(self, rows: Iterable[Row]) -> None:
        """Suspect the messages of rows."""
        self._places.update({row.id: _Place(row.lane, row.key) for row in rows})

    def drop_lanes(self, lanes: Collection[int]) -> None:
        """Suspect nothing in lanes that are empty of suspects, or lost."""
        kept = {id_: place for id_, place in self._places.items() if place.lane not in lanes}
        self._places = kept

    def drop_key(self, key: str) -> None:
        """Suspect nothing of a parked key."""
        self._places = {id_: place for id_, place in self._places.items() if place.key != key}

    def is_turn(self) -> bool:
        """Tell whether to send suspects now, rather than anything else."""
        if not self._places:
            return False
        now = self._clock()
        # A suspect in flight is awaited, even past the end of its round.
        if self.alone is None and self._round_ends <= now:
            if now < self._next_round:
                return False
            self._round_ends = now + self._round_seconds
            self._next_round = self._round_ends + self._round_seconds
        return True
