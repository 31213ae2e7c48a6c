"""Publish to Kafka through kafka-python: one producer after another.

The publisher also notices what a producer never reports: an outage, a deleted topic.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from brokers.base import Acknowledged, Failed, Message, Refused, Report
from brokers.errors import (
    BrokerConfigurationError,
    BrokerUnavailable,
    BrokerUnusable,
    QueueFull,
)
from brokers.kafka.address import KafkaAddress
from brokers.kafka.faults import Fault
from brokers.kafka.known_topics import KnownTopics
from brokers.kafka.outcomes import AFTER_A_FAILURE
from brokers.kafka.sizes import BATCH_BYTES, MAX_QUEUED_BYTES
from brokers.kafka.stall import Stall
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming
from brokers.kafka.topic_shapes import TopicWatch
from brokers.kafka_python.faults import CLIENT_ERRORS, fault_of, unavailable
from brokers.kafka_python.producer import KafkaPythonProducer, judge
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage

logger = get_logger(__name__)


class KafkaPythonPublisher:
    """Publish without transactions; see `brokers.base.Publisher`.

    Args:
        address: where the servers are.
        topics: knows the topics; shared by the publishers of a broker.
        watch: compares the topics' partitions from time to time.
        timing: durations of the client.
        max_queued_bytes: above them `publish()` raises `QueueFull`.
    """

    def __init__(
        self,
        address: KafkaAddress,
        topics: KnownTopics,
        *,
        watch: TopicWatch,
        timing: KafkaTiming = DEFAULT_TIMING,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
    ) -> None:
        self._address = address
        self._timing = timing
        self._max_queued_bytes = max_queued_bytes
        self._changed = threading.Condition()
        self._producer: KafkaPythonProducer | None = None
        self._reports: list[Report] = []
        self._topics = topics
        self._watch = watch
        self._outage = Outage(f"the broker kafka://{address}", logger=logger)
        self._stall = Stall(self._outage, timing)

    def publish(self, message: Message, *, token: int) -> bool:
        """Queue a message; see `Publisher.publish()`."""
        if self._has_failed():
            self._add(Failed(token, AFTER_A_FAILURE))
            return False
        producer = self._open_producer()
        topic = self._address.named(message.topic)
        report = self._report_if_absent(producer, topic, token)
        if report is None and len(message.value) > BATCH_BYTES:
            report = self._topics.report_if_too_large(topic, message, token)
        if report is not None:
            self._add(report)
            return False
        if producer.pending_bytes >= self._max_queued_bytes:
            raise QueueFull(f"{producer.pending_bytes} bytes wait for {self._address} already")
        return self._send(producer, message, token, topic)

    def _send(
        self, producer: KafkaPythonProducer, message: Message, token: int, topic: str
    ) -> bool:
        """Hand the message to the producer; returns whether it was queued."""
        try:
            producer.send(message, token, topic=topic)
        except (*CLIENT_ERRORS, TypeError, ValueError) as error:
            if fault_of(error) is Fault.MESSAGE:
                producer.report(judge(token, error))
                return False
            producer.forget(token)
            if producer.finished:  # it has ended since `publish()` asked
                self._add(Failed(token, AFTER_A_FAILURE))
                return False
            raise unavailable(self._address, error) from error
        return True

    def reports(self, *, timeout: float) -> list[Report]:
        """Fetch the reports; see `Publisher.reports()`."""
        with self._changed:
            self._changed.wait_for(self._has_reports, timeout)
            ended = self._has_failed()
        if ended:
            self.purge()
        with self._changed:
            reports = self._take_reports()
        if any(isinstance(report, Acknowledged) for report in reports):
            self._outage.over()
        elif not reports and self._producer is not None:
            self._look_after(self._producer)
            with self._changed:
                reports = self._take_reports()
        producer = self._producer
        is_waiting = False
        if producer is not None:
            self._watch.look(producer.partition_counts)
            is_waiting = bool(producer.pending and not reports and not producer.is_away)
        self._stall.note(is_waiting=is_waiting)
        return reports

    def commit(self, *, timeout: float) -> None:
        """Do nothing: kafka-python's transactions would wait for the end of an outage."""

    def purge(self) -> None:
        """Give up the unacknowledged messages; see `Publisher.purge()`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.free()
            with self._changed:
                self._reports += producer.reports

    def close(self) -> None:
        """Purge, and free every connection."""
        self.purge()

    def _has_failed(self) -> bool:
        """Tell whether the producer has ended and the caller has yet to fetch what failed with it.

        Until then a later message of a failed message's key must not go out by another producer.
        """
        return self._producer is not None and self._producer.finished

    def _open_producer(self) -> KafkaPythonProducer:
        if self._producer is None:
            try:
                self._producer = KafkaPythonProducer(
                    self._address, self._changed, timing=self._timing
                )
            except BrokerConfigurationError as error:
                raise BrokerUnusable(str(error)) from error
        return self._producer

    def _report_if_absent(
        self, producer: KafkaPythonProducer, topic: str, token: int
    ) -> Refused | Failed | None:
        """Report a message whose topic does not exist.

        This is asked before the producer learns of the topic: a producer asks for an absent topic
        ten times a second, without end.
        """
        if topic not in producer.partitions:
            found = self._topics.partitions_or_report(topic, token)
            if not isinstance(found, int):
                return found
            producer.partitions[topic] = found
        return None

    def _look_after(self, producer: KafkaPythonProducer) -> None:
        """Notice an outage, or a topic that was deleted under the producer.

        The producer tries for ever where a topic was deleted, also where the topic came back with
        fewer partitions. Another producer starts afresh: the topic is judged, other messages flow.
        """
        if producer.pending and producer.is_away:
            self._outage.failed("what is queued waits until it is back")
        if producer.finished:
            self.purge()
        elif producer.pending and self._is_stalled(producer):
            producer.moved_at = time.monotonic()
            with suppress(BrokerUnavailable):
                if _any_shrunk(producer.partitions, self._topics.ask_partition_count):
                    self.purge()

    def _is_stalled(self, producer: KafkaPythonProducer) -> bool:
        return time.monotonic() - producer.moved_at >= self._timing.stalled_after

    def _has_reports(self) -> bool:
        return bool(self._reports or (self._producer and self._producer.reports))

    def _take_reports(self) -> list[Report]:
        """Take the reports out; the caller holds `_changed`."""
        reports, self._reports = self._reports, []
        if self._producer is not None:
            reports += self._producer.reports
            self._producer.reports = []
        return reports

    def _add(self, report: Report) -> None:
        with self._changed:
            self._reports.append(report)
            self._changed.notify_all()


def _any_shrunk(partitions: dict[str, int], ask: Callable[[str], int]) -> bool:
    """Tell whether any topic has fewer partitions than noted."""
    return any(ask(topic) < count for topic, count in partitions.items())
