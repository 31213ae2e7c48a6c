"""The message relay: read ahead, publish, delete what the broker acknowledged, repeat.

Invariants:
- A row is deleted only after its delivery report; a crash in between sends it again.
- No database transaction is open while it publishes.
- After a failure nothing more is published until every report of what is in flight is in, so that
  a later message of a key cannot overtake an earlier one.
- A message is parked only when it was refused alone: a refused batch judges no message.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import connection

from brokers import Acknowledged, Broker, BrokerUnavailable, Failed, Publisher, Refused, Report
from brokers.outage import Outage
from outbox.away import AWAY
from outbox.models import OutboxMessage
from relay import rows
from relay.wire import wire_message

logger = logging.getLogger(__name__)

SHORTEST_POLL = 0.01
LONGEST_POLL = 0.25
REPORT_TIMEOUT = 0.05
FLUSH_TIMEOUT = 4.0


@dataclass(slots=True)
class _Flight:
    """What has been handed to the broker and is not yet deleted."""

    keys: dict[int, str] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    refused: dict[int, str] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    failure: str = ""

    @property
    def unreported(self) -> bool:
        return len(self.keys) > len(self.acknowledged) + len(self.refused)

    @property
    def halted(self) -> bool:
        return bool(self.failure or self.refused)

    def land(self, report: Report) -> None:
        if report.token not in self.keys:
            return
        match report:
            case Acknowledged(token):
                self.acknowledged.add(token)
            case Refused(token, reason):
                self.refused[token] = reason
            case Failed(token, reason):
                del self.keys[token]
                self.failed.add(token)
                self.failure = reason

    def recover(self) -> None:
        """Every report is in: what has failed may be sent again."""
        self.failed.clear()
        self.failure = ""

    def forget(self, ids: set[int]) -> None:
        for token in ids:
            self.keys.pop(token, None)
            self.refused.pop(token, None)
        self.acknowledged -= ids


class Relay:
    """Moves the outbox to a broker until told to stop.

    Args:
        broker: where to.
        source: the CloudEvents source of every message.
        batch_size: rows read and published at a time.
        jitter: 0 to 1, spreads the pauses of several relays.
        alive: called in each cycle.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        source: str,
        batch_size: int = 500,
        jitter: Callable[[], float] = random.random,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._broker = broker
        self._source = source
        self._batch_size = batch_size
        self._flight = _Flight()
        self._suspects: list[int] = []
        self._alone: int | None = None
        self._publisher: Publisher | None = None
        self._broker_outage = Outage(f"the broker {broker.name}", logger=logger, jitter=jitter)
        self._database_outage = Outage("the database", logger=logger, jitter=jitter)
        self._alive = alive
        self.published = 0

    def run(self, stop: threading.Event) -> None:
        """Relay until `stop` is set, then delete what is acknowledged within four seconds."""
        pause = SHORTEST_POLL
        try:
            while not stop.is_set():
                moved = self._guarded_cycle(stop)
                pause = SHORTEST_POLL if moved else min(pause * 1.5, LONGEST_POLL)
                if not moved and not self._flight.keys:
                    stop.wait(pause)
            self._flush()
        finally:
            self._close()

    def drain(self, stop: threading.Event) -> int:
        """Relay until the outbox is empty or `stop` is set; returns how many went out."""
        try:
            while not stop.is_set():
                if not self._guarded_cycle(stop) and not self._flight.keys:
                    break
            self._flush()
        finally:
            self._close()
        return self.published

    def _guarded_cycle(self, stop: threading.Event) -> bool:
        """One cycle; an outage pauses and spends nothing. Returns whether there was work."""
        self._alive()
        try:
            moved = self._cycle()
        except BrokerUnavailable as error:
            stop.wait(self._broker_outage.failed(error))
        except AWAY as error:
            connection.close()
            stop.wait(self._database_outage.failed(error))
        else:
            self._database_outage.over()
            if self._flight.failure and not self._flight.unreported:
                stop.wait(self._broker_outage.failed(self._flight.failure))
                self._flight.recover()
            return moved
        return True

    def _cycle(self) -> bool:
        busy = self._flight.halted or bool(self._suspects)
        if self._suspects:
            self._publish_suspect()
        elif not self._flight.halted:
            busy = self._publish_ahead() > 0
        self._collect(timeout=REPORT_TIMEOUT if self._flight.unreported else 0)
        deleted = self._delete_acknowledged()
        if self._flight.refused and not self._flight.unreported:
            self._judge_refused()
        return busy or deleted > 0

    def _publish_ahead(self) -> int:
        """Returns how many rows it found."""
        room = 2 * self._batch_size - len(self._flight.keys)
        if room < self._batch_size:
            return 0
        batch = rows.head(limit=self._batch_size, besides=self._flight.keys)
        found = len(batch)
        waiting = rows.parked_keys(batch)
        if waiting:
            self._park(waiting - set(self._flight.keys.values()), {})
            batch = [row for row in batch if row.key not in waiting]
        for row in batch:
            self._publish(row)
            self._collect(timeout=0)
            if self._flight.halted:  # a later message of a refused one's key must not go out
                break
        return found

    def _publish_suspect(self) -> None:
        """Send the first of the refused messages again, with nothing else on its way."""
        if self._flight.keys:
            return
        row = rows.first_of(self._suspects)
        if row is None:
            self._suspects.clear()
            self._alone = None
            return
        self._publish(row)
        self._alone = row.id

    def _publish(self, row: OutboxMessage) -> None:
        if self._publisher is None:
            self._publisher = self._broker.publisher()
        self._publisher.publish(wire_message(row, source=self._source), token=row.id)
        self._flight.keys[row.id] = row.key

    def _collect(self, *, timeout: float) -> None:
        if self._publisher is None:
            return
        for report in self._publisher.reports(timeout=timeout):
            self._flight.land(report)

    def _delete_acknowledged(self) -> int:
        done = set(self._flight.acknowledged)
        if done:
            rows.delete(done)
            self._flight.forget(done)
            self.published += len(done)
            self._broker_outage.over()
        return len(done)

    def _judge_refused(self) -> None:
        """Park the key of a message that was refused alone; of several, each shall be sent again
        alone, and so shall those that failed beside them, which may be earlier ones of a key. A
        suspect is one until its row has left the outbox."""
        refused = dict(self._flight.refused)
        if self._alone in refused:
            self._park({self._flight.keys[self._alone]}, refused)
        else:
            self._suspects = sorted({*self._suspects, *refused, *self._flight.failed})
        self._flight.forget(set(refused))
        self._alone = None

    def _park(self, keys: set[str], reasons: dict[int, str]) -> None:
        if keys:
            count = rows.park(keys, reasons=reasons)
            why = "; ".join(reasons.values()) or "an earlier message of the key is parked"
            logger.error("parked %d message(s) of key %s: %s", count, ", ".join(sorted(keys)), why)

    def _flush(self) -> None:
        """Wait a while for the reports of what is in flight, and delete what has arrived."""
        deadline = time.monotonic() + FLUSH_TIMEOUT
        try:
            while self._flight.unreported and time.monotonic() < deadline:
                self._collect(timeout=REPORT_TIMEOUT)
                self._delete_acknowledged()
            self._delete_acknowledged()
        except (BrokerUnavailable, *AWAY) as error:
            logger.warning("stopping with messages in flight, they will be sent again: %s", error)

    def _close(self) -> None:
        try:
            if self._publisher is not None:
                self._publisher.close()
        finally:
            connection.close()
