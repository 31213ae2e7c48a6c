"""Publishing to Kafka: one producer after another, and what they do not report."""

import threading
import time
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
from brokers.kafka.stall import Stall
from brokers.kafka.topic_shapes import TopicWatch
from brokers.kafka_python.connecting import CLIENT_ERRORS, fault, unavailable
from brokers.kafka_python.producer import BATCH_BYTES, Run, judged
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage

logger = get_logger(__name__)

MAX_QUEUED_BYTES = 64 * 1024 * 1024
STALLED_AFTER = 15.0
BAD_NEWS = "a message before it did not arrive"


class KafkaPythonPublisher:
    def __init__(self, address: KafkaAddress, topics: KnownTopics, *, watch: TopicWatch) -> None:
        self._address = address
        self._changed = threading.Condition()
        self._run: Run | None = None
        self._reports: list[Report] = []
        self._topics = topics
        self._watch = watch
        self._outage = Outage(f"the broker kafka://{address}", logger=logger)
        self._stall = Stall(self._outage)

    def publish(self, message: Message, *, token: int) -> bool:
        if self._has_bad_news():
            self._add(Failed(token, BAD_NEWS))
            return False
        run = self._ready_run()
        topic = self._address.named(message.topic)
        fate = self._fate(run, topic, token)
        if fate is None and len(message.value) > BATCH_BYTES:
            fate = self._topics.over_limit(topic, message, token)
        if fate is not None:
            self._add(fate)
            return False
        if run.pending_bytes >= MAX_QUEUED_BYTES:
            raise QueueFull(f"{run.pending_bytes} bytes wait for {self._address} already")
        try:
            run.send(message, token, topic=topic)
        except (*CLIENT_ERRORS, TypeError, ValueError) as error:
            if fault(error) is Fault.MESSAGE:
                run.land(judged(token, error))
                return False
            run.forget(token)
            if run.finished:  # it has ended between the question above and this
                self._add(Failed(token, BAD_NEWS))
                return False
            raise unavailable(self._address, error) from error
        return True

    def reports(self, *, timeout: float) -> list[Report]:
        with self._changed:
            self._changed.wait_for(self._has_reports, timeout)
            ended = self._run is not None and self._run.finished
        if ended:
            self.purge()
        with self._changed:
            reports = self._collected()
        if any(isinstance(report, Acknowledged) for report in reports):
            self._outage.over()
        elif not reports and self._run is not None:
            self._look_after(self._run)
            with self._changed:
                reports = self._collected()
        run = self._run
        if run is not None:
            self._watch.look(run.partition_counts)
        self._stall.note(is_waiting=bool(run and run.pending and not reports and not run.is_away))
        return reports

    def commit(self, *, timeout: float) -> None:
        """There are no transactions: kafka-python's would wait for an outage's end."""

    def purge(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.free()
            with self._changed:
                self._reports += run.reports

    def close(self) -> None:
        self.purge()

    def _has_bad_news(self) -> bool:
        """Whether a producer has ended, and the caller has yet to hear what failed with it: until
        then a later message of its key must not go out by another."""
        return self._run is not None and self._run.finished

    def _ready_run(self) -> Run:
        if self._run is None:
            try:
                self._run = Run(self._address, self._changed)
            except BrokerConfigurationError as error:
                raise BrokerUnusable(str(error)) from error
        return self._run

    def _fate(self, run: Run, topic: str, token: int) -> Refused | Failed | None:
        """Known where the topic is not. Asked before the producer learns of the topic: it asks for
        one that does not exist ten times a second for good."""
        if topic not in run.partitions:
            found = self._topics.partitions(topic, token)
            if not isinstance(found, int):
                return found
            run.partitions[topic] = found
        return None

    def _look_after(self, run: Run) -> None:
        """Notice what the producer never reports. It tries for ever where a topic was deleted under
        it, also where that came back with fewer partitions: start again, and the topic is judged,
        and other messages flow."""
        if run.pending and run.is_away:
            self._outage.failed("what is queued waits until it is back")
        if run.finished:
            self.purge()
        elif run.pending and time.monotonic() - run.moved_at >= STALLED_AFTER:
            run.moved_at = time.monotonic()
            with suppress(BrokerUnavailable):
                if any(
                    self._topics.partitions_now(name) < count
                    for name, count in run.partitions.items()
                ):
                    self.purge()

    def _has_reports(self) -> bool:
        return bool(self._reports or (self._run and self._run.reports))

    def _collected(self) -> list[Report]:
        reports, self._reports = self._reports, []
        if self._run is not None:
            reports += self._run.reports
            self._run.reports = []
        return reports

    def _add(self, report: Report) -> None:
        with self._changed:
            self._reports.append(report)
            self._changed.notify_all()
