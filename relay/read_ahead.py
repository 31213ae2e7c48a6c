"""What to read next: of which lanes, and how much.

On a backlog PostgreSQL reads the next batch while this one is published. That batch leaves out what
is under way and this one; so it may follow only if this one went out as a whole, and nothing has
changed since: no message failed, no lane was lost, closed or opened. Otherwise it is thrown away.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from brokers import QueueFull
from relay import rows
from relay.flight import Flight
from relay.lanes import Lanes
from relay.parking import ParkedKeys
from relay.resting_lanes import Rests
from relay.rows import Row
from relay.suspects import Suspects

_NOTHING: tuple[object, list[Row]] = (None, [])


class Reading:
    """Reads batches of rows that may be sent.

    Args:
        owner: the relay's name.
        batch_size: rows of one read.
    """

    def __init__(
        self,
        lanes: Lanes,
        flight: Flight,
        *,
        owner: str,
        batch_size: int,
        parked: ParkedKeys,
        suspects: Suspects,
        rests: Rests,
    ) -> None:
        self._lanes = lanes
        self._flight = flight
        self._owner = owner
        self._batch_size = batch_size
        self._parked = parked
        self._suspects = suspects
        self._rests = rests
        self._last_lane = -1
        self._ahead = _NOTHING
        self.is_full = False
        """The batch of this cycle is a whole one, so there may be more."""

    @property
    def room(self) -> int:
        """How many batches may be read: two are with the broker, and one is being deleted."""
        with_broker = 2 * self._batch_size - self._flight.unreported
        in_flight = 3 * self._batch_size - len(self._flight.rows)
        return max(0, min(with_broker, in_flight) // self._batch_size)

    def batch(self) -> list[Row]:
        """The next rows of the lanes that are open, as far as there is room."""
        if not self.room or not self._open_lanes():
            self.is_full = False
            return []
        (circumstances, batch), self._ahead = self._ahead, _NOTHING
        if not batch or circumstances != self._circumstances():
            batch = self._asked(self._flight.rows.values())()
        self._last_lane = batch[-1].lane if batch else -1
        self.is_full = len(batch) == self._batch_size
        under_way = {row.key for row in self._flight.rows.values()} if self._parked else set()
        return self._parked.without_waiting(batch, self._lanes.held, under_way)

    @contextmanager
    def ahead(self, batch: Collection[Row]) -> Iterator[None]:
        """While the block publishes this batch, the next one is read, if there may be more. Where
        the block raises, not all of this batch has gone out; where the queue is full, the rest of
        it is the next one, and nothing is read until that has gone out."""
        if not batch:
            yield
            return
        circumstances = self._circumstances()
        answer: Callable[[], list[Row]] = list
        if self.is_full:
            answer = self._asked([*self._flight.rows.values(), *batch])
        try:
            yield
        except BaseException as error:
            answer()  # the connection is free only then
            if isinstance(error, QueueFull):
                rest = [row for row in batch if row.id not in self._flight.rows]
                self._ahead = circumstances, rest
            raise
        self._ahead = circumstances, answer()

    def start_over(self) -> None:
        """Nothing is known any more of what was read before."""
        self._ahead = _NOTHING

    def _asked(self, besides: Collection[Row]) -> Callable[[], list[Row]]:
        return rows.head(
            self._open_lanes(),
            epochs=self._lanes.held,
            owner=self._owner,
            limit=self._batch_size,
            # No lane, however long, keeps the others waiting.
            lane_limit=max(1, self._batch_size // 4),
            besides=besides,
        )

    def _circumstances(self) -> object:
        """In which a batch that has been read may be sent."""
        return self._flight.troubles, dict(self._lanes.held), self._closed()

    def _closed(self) -> set[int]:
        closed = {*self._lanes.leaving, *self._flight.halted, *self._suspects.lanes}
        return closed | self._rests.lanes

    def _open_lanes(self) -> list[int]:
        """Those that may be read now. The one after the last that was read is first: each has its
        turn, and what is in flight is seldom walked over again."""
        closed = self._closed()
        lanes = sorted(lane for lane in self._lanes.held if lane not in closed)
        self._parked.learn(self._lanes.held)
        start = bisect_right(lanes, self._last_lane)
        return lanes[start:] + lanes[:start]
