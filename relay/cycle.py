"""Run a cycle of a relay: read ahead, publish, delete acknowledged rows.

Invariants:
- A row is deleted only after the delivery report; a crash in between sends the message again.
- No database transaction waits for the broker: a read made while a batch is handed to the
  producer commits by itself, at the latest when the batch has been handed over.
- Only lanes leased to the relay are read, each from the first row on, without rows in flight or
  about to be.
- After a failure nothing more is published in a lane until every report of the lane is in; else a
  later message of a key could overtake an earlier message.
- Nothing is published before a delete of nothing has succeeded, nor after a failed delete.
- A message is parked only when it was refused alone, or unsent: a refused batch judges no message.
"""

import math
from collections.abc import Callable

from django.db import Error, connection

from brokers import BrokerUnavailable, QueueFull
from relay.deleting import Deleter
from relay.failures import Failures
from relay.in_flight import InFlight
from relay.lanes import Lanes
from relay.parking import ParkedKeys
from relay.publishing import RowPublisher
from relay.read_ahead import ReadAhead
from relay.segments import Segments
from relay.store import Row, Store
from relay.suspects import Suspects
from relay.timing import Timing
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage
from saga_runtime.text import one_line_error

logger = get_logger(__name__)


class Cycle:
    """Do a relay's work, a cycle at a time; errors of the database and the broker go through.

    Args:
        batch_size: rows read and published at a time.
        broker_outage: over as soon as something has been published.
        clock: seconds.

    Attributes:
        read_at: when the outbox was read last, by the clock.
        reads: how often the outbox has been read.
        published: how many rows have been published and deleted.
    """

    def __init__(
        self,
        store: Store,
        *,
        lanes: Lanes,
        segments: Segments,
        in_flight: InFlight,
        reader: ReadAhead,
        publisher: RowPublisher,
        deleter: Deleter,
        parked: ParkedKeys,
        suspects: Suspects,
        failures: Failures,
        broker_outage: Outage,
        batch_size: int,
        timing: Timing,
        clock: Callable[[], float],
    ) -> None:
        self.store = store
        self.lanes = lanes
        self.segments = segments
        self.in_flight = in_flight
        self.reader = reader
        self.publisher = publisher
        self.deleter = deleter
        self.parked = parked
        self.suspects = suspects
        self._failures = failures
        self._broker_outage = broker_outage
        self._batch_size = batch_size
        self._timing = timing
        self._clock = clock
        self._has_more = False
        self.read_at, self.reads = -math.inf, 0
        self.published = 0

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing is in flight, and nothing waits to be sent alone."""
        return not self.in_flight.rows and not self.suspects

    @property
    def is_caught_up(self) -> bool:
        """Tell whether there is nothing to read but what will be committed."""
        return self.reader.has_all and self.reader.reads_all_lanes and not self.suspects

    def run(self, *, wait: float, reads: bool = True) -> bool:
        """Run a cycle.

        Args:
            reads: look for rows even while messages are in flight, and the last look has found all
                there was.
            wait: seconds to wait for news at most, with nothing to publish.

        Returns:
            Whether there was work.

        Raises:
            BrokerUnavailable: the broker does not answer.
            django.db.Error: the database does not answer, or refuses a statement.
        """
        self._has_more = False
        self._tend()
        self.deleter.make_sure()
        judging = self.suspects.is_turn()
        busy = judging or bool(self.suspects)
        try:
            if judging:
                self._publish_suspect()
            else:
                busy = self._publish_batch(reads=reads) > 0 or busy
        except QueueFull:  # there are reports to wait for
            busy = True
        deleted = self._await_news(wait)
        # Deleted first: what has arrived must not be parked with its key, and sent again later.
        deleted += self._delete_acknowledged()
        self._failures.settle(self.lanes.held)
        return busy or deleted > 0

    def flush(self) -> None:
        """Wait a while for the reports of messages in flight, and delete arrived messages."""
        deadline = self._clock() + self._timing.flush_timeout
        try:
            while self.in_flight.unreported and self._clock() < deadline:
                self.publisher.collect_reports(timeout=self._timing.report_timeout)
                self._delete_acknowledged()
            # Once for the delete that runs, and once for what was acknowledged meanwhile.
            self._take_deleted(timeout=None)
            self._delete_acknowledged()
            self._take_deleted(timeout=None)
        except (BrokerUnavailable, Error) as error:
            logger.warning(
                "stopping with messages in flight, they will be sent again: %s",
                one_line_error(error),
            )

    def close(self) -> None:
        """Give up queued messages, and only then the lanes."""
        try:
            self.publisher.close()
            self.deleter.close()
            self.lanes.release()
        except Error as error:
            logger.warning("lanes not released, their leases run out: %s", one_line_error(error))
        finally:
            connection.close()

    def _tend(self) -> None:
        if self.segments.is_due:
            # A delete holds locks on the segments, which would keep them from being emptied.
            self._take_deleted(timeout=None)
        self.segments.tend()
        lost = self.lanes.tend(busy=self.in_flight.lanes)
        if not lost:
            return
        logger.warning("lost %d lane(s) to other relays", len(lost))
        # What is queued is theirs to send; what is on its way, the inbox of a consumer absorbs.
        # Of the other lanes it is purged too: they halt until that has been settled.
        self.publisher.purge()
        self.in_flight.take_failure()
        self.suspects.drop_lanes(lost)

    def _publish_batch(self, *, reads: bool) -> int:
        """Publish the next batch, and return the number of rows."""
        if not reads and self.in_flight.rows and self.reader.has_all:
            return 0
        self.parked.learn(self.lanes.held)
        self.read_at, self.reads = self._clock(), self.reads + 1
        batch = self._without_parked_keys(self.reader.next_batch())
        with self.reader.reading_on(batch):
            self.publisher.publish(batch)
        self._has_more = self.reader.is_full and self.reader.room > 0
        return len(batch)

    def _without_parked_keys(self, batch: list[Row]) -> list[Row]:
        """Park rows waiting behind a parked message, and return the rest."""
        waiting = self.parked.among(batch)
        if not waiting:
            return batch
        self.reader.note_left()
        self.parked.park_waiting(waiting, held=self.lanes.held, in_flight=self.in_flight.keys)
        return [row for row in batch if row.key not in waiting]

    def _publish_suspect(self) -> None:
        """Send the first suspect again, with nothing else in flight."""
        if self.in_flight.rows:
            return
        row = self.store.first_of(self.suspects.ids, self.lanes.held)
        if row is None:
            self.suspects.drop_lanes(self.suspects.lanes)
            self.suspects.alone = None
            return
        self.publisher.publish([row])
        self.suspects.alone = row.id

    def _await_news(self, wait: float) -> int:
        """Wait for reports, or for the running delete, unless more can be published at once.

        Returns:
            How many rows have been deleted meanwhile.
        """
        if self._has_more:
            self.publisher.collect_reports(timeout=0)
            return 0
        wait = min(wait, self._timing.report_timeout)
        if self.in_flight.unreported:
            self._await_reports(wait)
            return 0
        self.publisher.collect_reports(timeout=0)
        return self._take_deleted(timeout=wait)

    def _await_reports(self, timeout: float) -> None:
        """Wait for the first report, and after more than a batch, for room for the next.

        A delete of many rows costs little more than a delete of few.
        """
        deadline = self._clock() + timeout
        self.publisher.collect_reports(timeout=timeout)
        while self.in_flight.unreported > self._batch_size:
            remaining = deadline - self._clock()
            if remaining <= 0:
                break
            self.publisher.collect_reports(timeout=remaining)

    def _delete_acknowledged(self) -> int:
        """Begin to delete acknowledged rows; return the number of deleted rows."""
        deleted = self._take_deleted()
        if not self.deleter.is_busy and (rows := self.in_flight.acknowledged()):
            self.deleter.start(rows, self.lanes.held)
            deleted += self._take_deleted()
        return deleted

    def _take_deleted(self, *, timeout: float | None = 0) -> int:
        rows = self.deleter.take_deleted(timeout=timeout)
        if rows:
            self.in_flight.remove_deleted(rows)
            self.published += len(rows)
            self.segments.note_deletes()
            self._broker_outage.over()
            if self.suspects.alone not in self.in_flight.rows:
                self.suspects.alone = None
        return len(rows)
