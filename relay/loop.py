"""The message relay: read ahead, publish, delete what the broker acknowledged, repeat.

Invariants:
- A row is deleted only after its delivery report; a crash in between sends it again.
- No database transaction waits for the broker: what is read while a batch is handed to the
  producer commits by itself, at the latest when that has been done.
- It reads only lanes that are leased to it, each from its first row on, without what is under way
  or about to be.
- After a failure nothing more is published in that lane until every report of what is in flight in
  it is in, so that a later message of a key cannot overtake an earlier one.
- Nothing is published before a delete of nothing has succeeded, nor after one that failed.
- A message is parked only when it was refused alone, or unsent: a refused batch judges no message.
"""

import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable

from django.db import Error, connection

from brokers import Broker, BrokerUnavailable, QueueFull
from outbox.models import LANES
from relay import rows
from relay.cloudevents import wire_messages
from relay.deleting import Deleter
from relay.failures import Settling
from relay.flight import Flight
from relay.lanes import EveryLane, Lanes, LeasedLanes
from relay.parking import ParkedKeys
from relay.publishing import Sending
from relay.read_ahead import Reading
from relay.refusals import Refusal, is_refusal
from relay.resting_lanes import Rests
from relay.segments import Segments
from relay.suspects import Suspects
from relay.timing import POSTGRESQL_TIMING, SQLITE_TIMING, Timing
from relay.transactions import LanePublishers, TransactionalLanes
from saga_runtime.database_errors import AWAY
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage
from saga_runtime.text import one_line_error

logger = get_logger(__name__)


def relay_name() -> str:
    """A name unlike any other relay's."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"[-64:]


def _lanes_of(name: str, *, most: int, lease: float, clock: Callable[[], float]) -> Lanes:
    if connection.vendor == "postgresql":
        return LeasedLanes(name, lease=lease, most=most, clock=clock)
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
        timing: how long it waits for what; by default as the database wants.
        jitter: 0 to 1, spreads the pauses of several relays.
        alive: called in each cycle.
        woken: set from outside when there is something new to read.
        ready: called once, after the first cycle that database and broker have let pass with lanes
            to read; where the others keep all of them, after two leases.
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
        timing: Timing | None = None,
        jitter: Callable[[], float] = random.random,
        alive: Callable[[], None] = lambda: None,
        woken: threading.Event | None = None,
        ready: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if timing is None:
            timing = POSTGRESQL_TIMING if connection.vendor == "postgresql" else SQLITE_TIMING
        self._timing = timing
        self._batch_size = batch_size
        self._name = relay_name()
        self._lanes: Lanes = lanes or _lanes_of(
            self._name, most=lanes_max, lease=timing.lease, clock=clock
        )
        self._flight = Flight()
        self._deleter = Deleter(self._name)
        self._suspects = Suspects(round_seconds=timing.suspects_round, clock=clock)
        self._parked = ParkedKeys(self._name)
        self._segments = Segments(timing=timing, clock=clock)
        self._more = False
        self._pause = timing.shortest_poll
        publisher = None
        if transactional:
            publisher = LanePublishers(
                broker,
                name=f"{source}.lane-",
                lane_of=lambda token: self._flight.rows[token].lane,
                commit_timeout=timing.commit_timeout,
            )
            self._lanes = TransactionalLanes(self._lanes, publisher)
        rests = Rests(backoff=timing.lane_rest, clock=clock)
        self._reading = Reading(
            self._lanes,
            self._flight,
            owner=self._name,
            batch_size=batch_size,
            parked=self._parked,
            suspects=self._suspects,
            rests=rests,
        )
        self._sending = Sending(
            broker, self._flight, message=wire_messages(source), publisher=publisher
        )
        self._settling = Settling(
            self._flight, parked=self._parked, suspects=self._suspects, rests=rests
        )
        self._broker_outage = Outage(
            f"the broker {broker.name}",
            logger=logger,
            clock=clock,
            jitter=jitter,
            backoff=timing.outage,
        )
        self._database_outage = Outage(
            "the database", logger=logger, clock=clock, jitter=jitter, backoff=timing.outage
        )
        self._refusal = Refusal(timing=timing, clock=clock)
        self._alive = alive
        self._ready = ready
        self._is_ready = False
        self._ready_without_lanes = clock() + 2 * timing.lease
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
                    self._pause = self._timing.shortest_poll
            self._flush()
        finally:
            self._close()

    def _wake_for(self, stop: threading.Event) -> None:
        stop.wait()
        self._woken.set()

    def drain(self, stop: threading.Event) -> int:
        """Relay until the outbox is empty or `stop` is set; returns how many went out.

        Raises:
            django.db.Error: the database refuses what the relay needs.
        """
        try:
            while not stop.is_set():
                moved = self._guarded_cycle(stop, bears_refusals=False)
                if moved or self._flight.rows or self._suspects:
                    continue
                if not rows.any_left():
                    break
                stop.wait(self._timing.shortest_poll)
            self._flush()
        finally:
            self._close()
        return self.published

    def _guarded_cycle(self, stop: threading.Event, *, bears_refusals: bool = True) -> bool:
        """One cycle; an outage or a refusal pauses and spends nothing. Returns whether there was
        work."""
        self._alive()
        began = self._clock()
        try:
            moved = self._cycle()
        except BrokerUnavailable as error:
            stop.wait(self._broker_outage.failed(error))
        except Error as error:
            connection.close()
            self._reading.start_over()
            stop.wait(self._pause_after(error, bears_refusals=bears_refusals))
        else:
            if not self._deleter.is_busy:  # one that is under way may yet fail
                self._database_outage.over()
                self._refusal.over()
            failure = self._flight.take_failure()
            if failure is not None:
                stop.wait(self._broker_outage.failed(failure.reason, answers=failure.lasting))
            elif not self._is_ready:
                self._tell_when_ready()
            self.cycles += moved
            self.cycle_seconds += self._clock() - began if moved else 0
            self._pause = self._next_pause(moved=moved)
            return moved
        return True

    def _next_pause(self, *, moved: bool) -> float:
        if moved:
            return self._timing.shortest_poll
        return min(self._pause * 1.5, self._timing.longest_poll)

    def _pause_after(self, error: Error, *, bears_refusals: bool) -> float:
        """Returns the seconds to pause; raises what neither a pause nor a person can mend."""
        if is_refusal(error) and bears_refusals:
            return self._refusal.refused(error)
        if is_refusal(error) or not isinstance(error, AWAY):
            raise error
        return self._database_outage.failed(error)

    def _tell_when_ready(self) -> None:
        """After a crash the lanes are leased to a relay that is dead, for a while."""
        if self._lanes.held or self._clock() >= self._ready_without_lanes:
            self._is_ready = True
            self._ready()

    def _cycle(self) -> bool:
        self._more = False
        self._tend()
        self._deleter.make_sure()
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
        self._settling.settle(self._lanes.held)
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
        # Of the other lanes it is purged too: they stop until that has been settled.
        self._sending.purge()
        self._flight.take_failure()
        self._suspects.drop(lanes=lost)

    def _publish_ahead(self) -> int:
        """Returns how many rows it found that may be sent."""
        batch = self._reading.batch()
        with self._reading.ahead(batch):
            self._sending.publish(batch)
        self._more = self._reading.is_full and self._reading.room > 0
        return len(batch)

    def _publish_suspect(self) -> None:
        """Send the first of the refused messages again, with nothing else on its way."""
        if self._flight.rows:
            return
        row = rows.first_of(self._suspects.ids, self._lanes.held, self._name)
        if row is None:
            self._suspects.drop(lanes=self._suspects.lanes)
            self._suspects.alone = None
            return
        self._sending.publish([row])
        self._suspects.alone = row.id

    def _await_news(self) -> None:
        """Where no more can be published, wait for the first report, and if more than a batch is on
        its way, until there is room for another: a delete of many costs little more than one of
        few. Where there is no report to wait for, wait for the delete that is under way."""
        if self._more:
            self._sending.collect(timeout=0)
        elif self._flight.unreported:
            self._await_reports(min(self._pause, self._timing.report_timeout))
        else:
            self._sending.collect(timeout=0)
            self._forget_deleted(timeout=self._pause)

    def _await_reports(self, timeout: float) -> None:
        deadline = self._clock() + timeout
        self._sending.collect(timeout=timeout)
        while self._flight.unreported > self._batch_size:
            remaining = deadline - self._clock()
            if remaining <= 0:
                break
            self._sending.collect(timeout=remaining)

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
            self._flight.deleted(done)
            self.published += len(done)
            self._segments.used()
            self._broker_outage.over()
            if self._suspects.alone not in self._flight.rows:
                self._suspects.alone = None
        return len(done)

    def _flush(self) -> None:
        """Wait a while for the reports of what is in flight, and delete what has arrived."""
        deadline = self._clock() + self._timing.flush_timeout
        try:
            while self._flight.unreported and self._clock() < deadline:
                self._sending.collect(timeout=self._timing.report_timeout)
                self._delete_acknowledged()
            self._forget_deleted(timeout=None)
            self._delete_acknowledged()
            self._forget_deleted(timeout=None)
        except (BrokerUnavailable, Error) as error:
            logger.warning(
                "stopping with messages in flight, they will be sent again: %s",
                one_line_error(error),
            )

    def _close(self) -> None:
        try:
            self._sending.close()
            self._deleter.close()
            self._lanes.release()
        except Error as error:
            logger.warning("lanes not released, their leases run out: %s", one_line_error(error))
        finally:
            connection.close()
