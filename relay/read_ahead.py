"""Read batches: of the right lanes, as many rows as there is room for, ahead where possible.

On a backlog PostgreSQL reads the next batch while the current batch is published. The next batch
leaves out rows in flight and the current batch. So the next batch may be sent only if the current
batch went out as a whole, and nothing has changed since: no message failed, no lane was lost,
closed or opened. Otherwise the next batch is thrown away.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from brokers import QueueFull
from relay.in_flight import InFlight
from relay.lanes import Lanes
from relay.resting_lanes import RestingLanes
from relay.store import Pending, Row, Store
from relay.suspects import Suspects


class _Circumstances(NamedTuple):
    """Hold circumstances that must not change between a read and the sending of the rows.

    Attributes:
        undelivered_count: how many messages have not arrived so far.
        held: the relay's lanes, each with the epoch of the claim.
        closed: lanes not to be read.
    """

    undelivered_count: int
    held: Mapping[int, int]
    closed: set[int]


class _Ahead(NamedTuple):
    """Hold rows read ahead."""

    rows: list[Row]
    circumstances: _Circumstances | None


_NOTHING = _Ahead([], None)


class ReadAhead:
    """Read batches of rows to send.

    Args:
        batch_size: rows of a read.

    Attributes:
        is_full: whether the latest batch is whole, and there may be more rows.
    """

    def __init__(
        self,
        store: Store,
        lanes: Lanes,
        in_flight: InFlight,
        *,
        batch_size: int,
        suspects: Suspects,
        resting: RestingLanes,
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._in_flight = in_flight
        self._batch_size = batch_size
        self._lane_limit = max(1, batch_size // 4)
        self._suspects = suspects
        self._resting = resting
        self._last_lane = -1
        self._ahead = _NOTHING
        # Where nothing has changed since, the next read finds only what was committed since.
        self._read_under: _Circumstances | None = None
        self.is_full = False

    @property
    def room(self) -> int:
        """Return how many batches may be read: two are with the broker, a third is deleted."""
        with_broker = 2 * self._batch_size - self._in_flight.unreported
        in_flight = 3 * self._batch_size - len(self._in_flight.rows)
        return max(0, min(with_broker, in_flight) // self._batch_size)

    @property
    def has_all(self) -> bool:
        """Tell whether the latest read has found all rows that there were, in lanes still open."""
        is_current = self._read_under == self._circumstances()
        return is_current and not (self.is_full or self._ahead.rows)

    @property
    def reads_all_lanes(self) -> bool:
        """Tell whether no lane is closed for a while."""
        return not self._closed()

    def next_batch(self) -> list[Row]:
        """Return the next rows of the open lanes, as far as there is room."""
        self._read_under = None
        if not self.room or not self._open_lanes():
            self.is_full = False
            return []
        # Taken, and so gone: a batch of other circumstances is read anew, never sent later.
        (batch, circumstances), self._ahead = self._ahead, _NOTHING
        if not batch or circumstances != self._circumstances():
            batch = self._ask(self._in_flight.rows.values()).result()
        self._last_lane = batch[-1].lane if batch else -1
        # A lane at its limit may have more rows.
        fullest = max(Counter(row.lane for row in batch).values(), default=0)
        self._read_under = None if fullest >= self._lane_limit else self._circumstances()
        self.is_full = len(batch) == self._batch_size
        return batch

    @contextmanager
    def reading_on(self, batch: Collection[Row]) -> Iterator[None]:
        """Read the next batch, if there may be more, while the block publishes the current batch.

        Where the block raises, not all of the batch has gone out. After QueueFull the rest of the
        batch comes next, and nothing is read until the rest has gone out.
        """
        if not batch:
            yield
            return
        circumstances = self._circumstances()
        pending: Pending | None = None
        if self.is_full:
            pending = self._ask([*self._in_flight.rows.values(), *batch])
        try:
            yield
        except BaseException as error:
            self._read_under = None  # the rest of the batch is still to be sent
            if pending is not None:
                pending.result()  # the connection is free only then
            if isinstance(error, QueueFull):
                rest = [row for row in batch if row.id not in self._in_flight.rows]
                self._ahead = _Ahead(rest, circumstances)
            raise
        self._ahead = _Ahead(pending.result() if pending else [], circumstances)

    def forget(self) -> None:
        """Throw away rows read ahead, and what the latest read has told."""
        self._ahead = _NOTHING
        self._read_under = None

    def note_left(self) -> None:
        """Note that rows of the latest read stay where they are."""
        self._read_under = None

    def _ask(self, in_flight: Collection[Row]) -> Pending:
        return self._store.head(
            self._open_lanes(),
            epochs=self._lanes.held,
            in_flight=in_flight,
            limit=self._batch_size,
            # No lane, however long, keeps the others waiting.
            lane_limit=self._lane_limit,
        )

    def _circumstances(self) -> _Circumstances:
        count = self._in_flight.undelivered_count
        return _Circumstances(count, dict(self._lanes.held), self._closed())

    def _closed(self) -> set[int]:
        closed = {*self._lanes.draining, *self._in_flight.halted, *self._suspects.lanes}
        return closed | self._resting.lanes

    def _open_lanes(self) -> list[int]:
        """Return the lanes open now, beginning behind the lane that was read last.

        So each lane has a turn, and reads seldom walk over rows in flight again.
        """
        closed = self._closed()
        lanes = sorted(lane for lane in self._lanes.held if lane not in closed)
        start = bisect_right(lanes, self._last_lane)
        return lanes[start:] + lanes[:start]
