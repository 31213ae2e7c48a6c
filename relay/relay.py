"""The message relay: read ahead, publish, delete what the broker acknowledged, repeat.

Invariants:
- A row is deleted only after its delivery report; a crash in between sends it again.
- No database transaction is open while it publishes.
- It reads only lanes that are leased to it, each from its first row on, without what is under way.
- After a failure nothing more is published in that lane until every report of what is in flight in
  it is in, so that a later message of a key cannot overtake an earlier one.
- A message is parked only when it was refused alone, or unsent: a refused batch judges no message.
"""

import logging
import os
import random
import socket
import threading
import time
import uuid
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable

from django.db import connection

from brokers import Broker, BrokerUnavailable, Publisher, QueueFull, Refused
from brokers.outage import Outage
from outbox.away import AWAY
from outbox.models import LANES
from relay import rows
from relay.deleting import Deleter
from relay.flight import Flight
from relay.lanes import EveryLane, Lanes, LeasedLanes
from relay.parking import ParkedKeys
from relay.rests import Rests
from relay.rows import Row
from relay.segments import Segments
from relay.suspects import Suspects
from relay.transactions import LanePublishers, TransactionalLanes
from relay.wire import wire_messages

logger = logging.getLogger(__name__)

SHORTEST_POLL = 0.005
LONGEST_POLL = {"postgresql": 0.7, "sqlite": 0.25}
REPORT_TIMEOUT = 0.05
FLUSH_TIMEOUT = 4.0
UNWRITABLE = (AttributeError, TypeError, ValueError)


def relay_name() -> str:
    """A name unlike any other relay's."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"[-64:]


def _lanes_of(name: str, *, most: int, clock: Callable[[], float]) -> Lanes:
    if connection.vendor == "postgresql":
        return LeasedLanes(name, most=most, clock=clock)
    return EveryLane()


class Relay:
    """Moves the outbox to a broker until told to stop.

    Args:
        broker: where to.
        source: the CloudEvents source of every message.
        batch_size: rows read and published at a time.
        lanes_max: how many lanes it takes at most, on PostgreSQL.
        lanes: those that it may read; by default leased ones, and on SQLite all.
        transactional: one transactional producer for each lane; the broker must have transactions.
        jitter: 0 to 1, spreads the pauses of several relays.
        alive: called in each cycle.
        woken: set from outside when there is something new to read.
        clock: seconds, of which leases and housekeeping are reckoned.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        source: str,
        batch_size: int = 1000,
        lanes_max: int = LANES,
        lanes: Lanes | None = None,
        transactional: bool = False,
        jitter: Callable[[], float] = random.random,
        alive: Callable[[], None] = lambda: None,
        woken: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker = broker
        self._batch_size = batch_size
        self._name = relay_name()
        self._lanes: Lanes = lanes or _lanes_of(self._name, most=lanes_max, clock=clock)
        self._longest_poll = LONGEST_POLL[connection.vendor]
        self._message = wire_messages(source)
        self._flight = Flight()
        self._deleter = Deleter(self._name)
        self._suspects = Suspects()
        self._rests = Rests()
        self._parked = ParkedKeys(self._name)
        self._segments = Segments(clock=clock)
        self._last_lane = -1
        self._more = False
        self._pause = SHORTEST_POLL
        self._publisher: Publisher | None = None
        if transactional:
            self._publisher = publishers = LanePublishers(
                broker, name=f"{source}.lane-", lane_of=lambda token: self._flight.rows[token].lane
            )
            self._lanes = TransactionalLanes(self._lanes, publishers)
        self._broker_outage = Outage(f"the broker {broker.name}", logger=logger, jitter=jitter)
        self._database_outage = Outage("the database", logger=logger, jitter=jitter)
        self._alive = alive
        self._woken = woken or threading.Event()
        self._clock = clock
        self.published = 0
        self.cycles = 0
        self.cycle_seconds = 0.0

    @property
    def parked(self) -> int:
        return self._parked.count

    @property
    def lanes_held(self) -> int:
        return len(self._lanes.held)

    @property
    def in_flight(self) -> int:
        return len(self._flight.rows)

    @property
    def outages(self) -> dict[str, int]:
        return {"broker": self._broker_outage.count, "database": self._database_outage.count}

    def run(self, stop: threading.Event) -> None:
        """Relay until `stop` is set, then delete what is acknowledged within four seconds."""
        threading.Thread(target=self._wake_for, args=(stop,), daemon=True).start()
        try:
            while not stop.is_set():
                self._woken.clear()
                moved = self._guarded_cycle(stop)
                if not moved and not self._flight.rows and self._woken.wait(self._pause):
                    self._pause = SHORTEST_POLL
            self._flush()
        finally:
            self._close()

    def _wake_for(self, stop: threading.Event) -> None:
        stop.wait()
        self._woken.set()

    def drain(self, stop: threading.Event) -> int:
        """Relay until the outbox is empty or `stop` is set; returns how many went out."""
        try:
            while not stop.is_set():
                if self._guarded_cycle(stop) or self._flight.rows or self._suspects:
                    continue
                if not rows.any_left():
                    break
                stop.wait(SHORTEST_POLL)
            self._flush()
        finally:
            self._close()
        return self.published

    def _guarded_cycle(self, stop: threading.Event) -> bool:
        """One cycle; an outage pauses and spends nothing. Returns whether there was work."""
        self._alive()
        began = self._clock()
        try:
            moved = self._cycle()
        except BrokerUnavailable as error:
            stop.wait(self._broker_outage.failed(error))
        except AWAY as error:
            connection.close()
            stop.wait(self._database_outage.failed(error))
        else:
            if not self._deleter.is_busy:  # one that is under way may yet fail
                self._database_outage.over()
            failure = self._flight.take_failure()
            if failure:
                stop.wait(self._broker_outage.failed(failure))
            self.cycles += moved
            self.cycle_seconds += self._clock() - began if moved else 0
            self._pause = SHORTEST_POLL if moved else min(self._pause * 1.5, self._longest_poll)
            return moved
        return True

    def _cycle(self) -> bool:
        self._more = False
        self._tend()
        judging = self._suspects.is_turn()
        busy = judging or bool(self._suspects)
        try:
            if judging:
                self._publish_suspect()
            else:
                busy = self._publish_ahead() > 0 or busy
        except QueueFull:  # there are reports to wait for
            busy = True
        self._await_news()
        deleted = self._delete_acknowledged()
        self._settle()
        return busy or deleted > 0

    def _tend(self) -> None:
        if self._segments.is_due:
            self._forget_deleted(timeout=None)  # or else we ourselves keep them from being emptied
        self._segments.tend()
        lost = self._lanes.tend(busy=self._flight.lanes)
        if not lost:
            return
        logger.warning("lost %d lane(s) to other relays", len(lost))
        # What is queued is theirs to send; what is under way, the inbox of a consumer absorbs.
        if self._publisher is not None:
            self._publisher.purge()
            # Of the other lanes it was purged too: they stop until that has been settled.
            self._collect(timeout=0)
            self._flight.take_failure()
        self._suspects.drop(lanes=lost)

    def _publish_ahead(self) -> int:
        """Returns how many rows it found that may be sent."""
        batches = self._room()
        lanes = self._open_lanes()
        if not batches or not lanes:
            return 0
        held = self._lanes.held
        batch = rows.head(
            lanes,
            epochs=held,
            owner=self._name,
            limit=self._batch_size,
            # No lane, however long, keeps the others waiting.
            lane_limit=max(1, self._batch_size // 4),
            besides=self._flight.rows,
        )
        self._last_lane = batch[-1].lane if batch else -1
        under_way = {row.key for row in self._flight.rows.values()} if self._parked else set()
        ready = self._parked.without_waiting(batch, held, under_way)
        self._publish_all(ready)
        self._more = len(batch) == self._batch_size and batches > 1
        return len(ready)

    def _room(self) -> int:
        """How many batches may be read: two are with the broker, and one is being deleted."""
        with_broker = 2 * self._batch_size - self._flight.unreported
        in_memory = 3 * self._batch_size - len(self._flight.rows)
        return max(0, min(with_broker, in_memory) // self._batch_size)

    def _open_lanes(self) -> list[int]:
        """Those that may be read now. The one after the last that was read is first: each has its
        turn, and what is in flight is seldom walked over again."""
        closed = {*self._lanes.leaving, *self._flight.halted, *self._suspects.lanes}
        closed |= self._rests.lanes
        lanes = sorted(lane for lane in self._lanes.held if lane not in closed)
        self._parked.learn(self._lanes.held)
        start = bisect_right(lanes, self._last_lane)
        return lanes[start:] + lanes[:start]

    def _publish_all(self, batch: Collection[Row]) -> None:
        """In order; in a lane where one has just been refused, nothing more."""
        halted = self._flight.halted
        for row in batch:
            if row.lane not in halted:
                self._publish(row)

    def _publish_suspect(self) -> None:
        """Send the first of the refused messages again, with nothing else on its way."""
        if self._flight.rows:
            return
        row = rows.first_of(self._suspects.ids, self._lanes.held, self._name)
        if row is None:
            self._suspects.drop(lanes=self._suspects.lanes)
            self._suspects.alone = None
            return
        self._publish(row)
        self._suspects.alone = row.id

    def _publish(self, row: Row) -> None:
        if self._publisher is None:
            self._publisher = self._broker.publisher()
        self._flight.start(row)
        try:
            message = self._message(row)
        except UNWRITABLE as error:
            reason = f"it cannot be written as a message: {error}"
            self._flight.land([Refused(row.id, reason, unsent=True)])
            return
        try:
            queued = self._publisher.publish(message, token=row.id)
        except BrokerUnavailable:
            self._flight.cancel(row)
            raise
        if not queued:
            self._collect(timeout=0)

    def _await_news(self) -> None:
        """Where no more can be published, wait for the first report, and if more than a batch is on
        its way, until there is room for another: a delete of many costs little more than one of
        few. Where there is no report to wait for, wait for the delete that is under way."""
        if self._more:
            self._collect(timeout=0)
        elif self._flight.unreported:
            self._await_reports(min(self._pause, REPORT_TIMEOUT))
        else:
            self._collect(timeout=0)
            self._forget_deleted(timeout=self._pause)

    def _await_reports(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._collect(timeout=timeout)
        while self._flight.unreported > self._batch_size:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            self._collect(timeout=remaining)

    def _collect(self, *, timeout: float) -> None:
        if self._publisher is not None:
            self._flight.land(self._publisher.reports(timeout=timeout))

    def _delete_acknowledged(self) -> int:
        """Returns how many rows have been deleted."""
        deleted = self._forget_deleted()
        if not self._deleter.is_busy and (done := self._flight.acknowledged()):
            self._deleter.start(done, self._lanes.held)
            deleted += self._forget_deleted()
        return deleted

    def _forget_deleted(self, *, timeout: float | None = 0) -> int:
        done = self._deleter.deleted(timeout=timeout)
        if done:
            self._flight.forget(done)
            self.published += len(done)
            self._segments.used()
            self._broker_outage.over()
            if self._suspects.alone not in self._flight.rows:
                self._suspects.alone = None
        return len(done)

    def _settle(self) -> None:
        """In each lane that has stopped and of which every report is in: what failed is read again.
        What was refused alone, or unsent, is parked with its key. What was refused in company shall
        be sent again alone, and so shall what failed beside it, which may be earlier ones of a
        key."""
        quiet = self._flight.quiet_lanes()
        if not quiet:
            return
        refused, failed = self._flight.settled(quiet)
        unsettled = [*refused.values(), *failed.values()]
        certain = {*self._flight.unsent, self._suspects.alone}
        judged = [row for row in refused.values() if row.id in certain]
        self._park_first(judged, unsettled)
        doubtful = [row for row in refused.values() if row.id not in certain]
        lanes = {row.lane for row in doubtful} & self._lanes.held.keys()
        self._suspects.add(row for row in [*doubtful, *failed.values()] if row.lane in lanes)
        self._flight.forget(unsettled)
        if self._suspects.alone in refused or self._suspects.alone in failed:
            self._suspects.alone = None
        self._flight.resume(quiet)
        for lane in quiet & self._flight.to_rest.keys():
            self._rests.add(lane, self._flight.to_rest.pop(lane))

    def _park_first(self, judged: Collection[Row], unsettled: Iterable[Row]) -> None:
        """With what follows in their keys. Where an earlier one of the key has not arrived yet,
        both are read again."""
        first: dict[str, int] = {}
        for row in unsettled:
            first[row.key] = min(row.id, first.get(row.key, row.id))
        refused = [row for row in judged if first[row.key] == row.id]
        self._parked.park(refused, self._flight.refused, self._lanes.held)
        for row in refused:
            self._suspects.drop_key(row.key)

    def _flush(self) -> None:
        """Wait a while for the reports of what is in flight, and delete what has arrived."""
        deadline = time.monotonic() + FLUSH_TIMEOUT
        try:
            while self._flight.unreported and time.monotonic() < deadline:
                self._collect(timeout=REPORT_TIMEOUT)
                self._delete_acknowledged()
            self._forget_deleted(timeout=None)
            self._delete_acknowledged()
            self._forget_deleted(timeout=None)
        except (BrokerUnavailable, *AWAY) as error:
            logger.warning("stopping with messages in flight, they will be sent again: %s", error)

    def _close(self) -> None:
        try:
            if self._publisher is not None:
                self._publisher.close()
            self._deleter.close()
            self._lanes.release()
        except AWAY as error:
            logger.warning("lanes not released, their leases run out: %s", error)
        finally:
            connection.close()
