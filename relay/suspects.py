"""Messages that were refused together with others. Each is sent again alone, with nothing else
under way, and only then judged. Between two rounds of that, the other lanes have their turn."""

import time
from collections.abc import Callable, Collection, Iterable

from relay.rows import Row
from relay.timing import POSTGRESQL_TIMING


class Suspects:
    """A message is one until its row has left the outbox.

    Args:
        round_seconds: how long one round of judging takes, and the pause after it.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        round_seconds: float = POSTGRESQL_TIMING.suspects_round,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._round_seconds = round_seconds
        self._clock = clock
        self._places: dict[int, tuple[int, str]] = {}
        self._round_ends = 0.0
        self._next_round = 0.0
        self.alone: int | None = None
        """The one that is under way alone."""

    def __bool__(self) -> bool:
        return bool(self._places)

    @property
    def ids(self) -> Collection[int]:
        return self._places.keys()

    @property
    def lanes(self) -> set[int]:
        """Their lanes, in which nothing else may be sent."""
        return {lane for lane, _ in self._places.values()}

    def add(self, rows: Iterable[Row]) -> None:
        self._places.update({row.id: (row.lane, row.key) for row in rows})

    def drop(self, *, lanes: Collection[int]) -> None:
        """None in these lanes is a suspect any more: they are empty of them, or another relay's."""
        self._places = {id_: at for id_, at in self._places.items() if at[0] not in lanes}

    def drop_key(self, key: str) -> None:
        """What there is of this key is parked, or will be."""
        self._places = {id_: at for id_, at in self._places.items() if at[1] != key}

    def is_turn(self) -> bool:
        """Whether it is time to send them, rather than anything else."""
        if not self._places:
            return False
        now = self._clock()
        if self.alone is None and self._round_ends <= now:
            if now < self._next_round:
                return False
            self._round_ends = now + self._round_seconds
            self._next_round = self._round_ends + self._round_seconds
        return True
