"""Publish to Kafka through librdkafka: one producer after another.

The client is here for its speed, see `benchmarks/producing.py`. Work for every message stands only
in the first lines of `publish()`, in `LibrdkafkaProducer.send()` and in `_note_delivery()`.
"""

import time

from confluent_kafka import KafkaError, KafkaException

from brokers.base import Acknowledged, Failed, Message, Refused, Report
from brokers.errors import (
    BrokerConfigurationError,
    BrokerUnavailable,
    BrokerUnusable,
    Fenced,
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
from brokers.librdkafka.faults import FENCED, explain, fault_of, kafka_error
from brokers.librdkafka.producer import LibrdkafkaProducer
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage

logger = get_logger(__name__)


class LibrdkafkaPublisher:
    """Publish, with transactions or without; see `brokers.base.TransactionalPublisher`.

    Args:
        address: where the servers are.
        topics: knows the topics; shared by the publishers of a broker.
        watch: compares the topics' partitions from time to time.
        transactional_id: publish in transactions; the server sees the address's prefix before it.
        timing: durations of the client.
        max_queued_bytes: above them `publish()` raises `QueueFull`.
    """

    def __init__(
        self,
        address: KafkaAddress,
        topics: KnownTopics,
        *,
        watch: TopicWatch,
        transactional_id: str | None = None,
        timing: KafkaTiming = DEFAULT_TIMING,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
    ) -> None:
        self._address = address
        self._transactional_id = address.named(transactional_id) if transactional_id else None
        self._timing = timing
        self._max_queued_bytes = max_queued_bytes
        self._producer: LibrdkafkaProducer | None = None
        self._reports: list[Report] = []
        self._topics = topics
        self._watch = watch
        self._careful = False
        self._fenced = False
        self._outage = Outage(f"the broker kafka://{address}", logger=logger)
        self._stall = Stall(self._outage, timing)

    @property
    def is_ready(self) -> bool:
        """Whether the next message belongs to the latest takeover of the id."""
        return self._producer is not None and not self._producer.finished

    def take_over(self) -> None:
        """Take over the transactional id; see `TransactionalPublisher.take_over()`."""
        if self._fenced:
            raise self._fenced_error()
        self._open_producer()

    def publish(self, message: Message, *, token: int) -> bool:
        """Queue a message; see `Publisher.publish()`."""
        producer = self._producer
        if (
            producer is None
            or producer.finished
            or producer.is_committing
            or message.topic not in producer.topics
        ):
            producer = self._prepare(message.topic, token)
            if producer is None:
                return False
        if len(message.value) > BATCH_BYTES:
            topic = producer.topics[message.topic]
            refused = self._topics.report_if_too_large(topic, message, token)
            if refused is not None:
                self._reports.append(refused)
                return False
        try:
            producer.send(message, token, topic=producer.topics[message.topic])
        except BufferError:
            self._send_into_full_queue(producer, message, token)
        except KafkaException as error:
            self._note_unsent(producer, token, kafka_error(error))
            return False
        except (TypeError, ValueError) as error:
            self._reports.append(Refused(token, explain(error), unsent=True))
            return False
        return True

    def reports(self, *, timeout: float) -> list[Report]:
        """Fetch the reports; see `Publisher.reports()`."""
        producer = self._producer
        if producer is not None:
            producer.wait(0 if self._reports else timeout)
            if producer.finished or producer.is_stale:
                self.purge()
        elif not self._reports:
            time.sleep(timeout)
        reports = self._take_reports()
        if producer is not None:
            is_waiting = bool(producer.pending) and not reports and producer.away is None
            self._stall.note(is_waiting=is_waiting)
            if producer.away is not None or self._outage.going_on:
                self._log_outage(producer, reports)
            self._watch.look(producer.partition_counts)
        return reports

    def commit(self, *, timeout: float) -> None:
        """Commit the open transaction; see `Publisher.commit()`."""
        producer = self._producer
        if self._fenced:
            raise self._fenced_error()
        if producer is None or not producer.in_transaction:
            return
        producer.wait(0)
        if not producer.finished:
            try:
                producer.commit(timeout)
            except KafkaException as error:
                self._note_not_committed(producer, kafka_error(error))
        if producer.finished:
            self.purge()
        if self._fenced:
            raise self._fenced_error()

    def purge(self) -> None:
        """Give up the unacknowledged messages; see `Publisher.purge()`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.free()
            self._reports += producer.take_reports()
            self._careful = self._careful or producer.refused_in_company
            self._fenced = self._fenced or producer.fenced

    def close(self) -> None:
        """Purge, and free every connection."""
        self.purge()

    def _prepare(self, topic: str, token: int) -> LibrdkafkaProducer | None:
        """Find a producer that may send a message to a topic.

        Returns:
            The producer; None where the message is reported already.
        """
        producer = self._producer
        if self._fenced:
            raise self._fenced_error()
        if producer is not None and producer.finished:
            # The caller has yet to fetch what failed with this producer: until then a later message
            # of a failed message's key must not go out by another producer.
            self._reports.append(Failed(token, AFTER_A_FAILURE))
            return None
        if producer is not None and producer.is_committing:
            raise BrokerUnavailable("a commit has not ended: call commit() again")
        name = self._address.named(topic)
        if producer is None or topic not in producer.topics:
            found = self._topics.partitions_or_report(name, token)
            if not isinstance(found, int):
                self._reports.append(found)
                return None
        producer = self._open_producer()
        producer.topics[topic] = name
        return producer

    def _open_producer(self) -> LibrdkafkaProducer:
        if self._producer is None:
            careful, self._careful = self._careful, False
            try:
                self._producer = LibrdkafkaProducer(
                    self._address,
                    careful=careful,
                    transactional_id=self._transactional_id,
                    timing=self._timing,
                    max_queued_bytes=self._max_queued_bytes,
                )
            except BrokerConfigurationError as error:
                raise BrokerUnusable(str(error)) from error
            except KafkaException as error:
                raise self._unavailable(kafka_error(error)) from error
        return self._producer

    def _send_into_full_queue(
        self, producer: LibrdkafkaProducer, message: Message, token: int
    ) -> None:
        """Fetch reports, which empties the queue of acknowledged messages, and send again."""
        producer.wait(0)
        try:
            producer.send(message, token, topic=producer.topics[message.topic])
        except (BufferError, KafkaException) as error:
            raise QueueFull(
                f"{len(producer.pending)} messages wait for {self._address} already"
            ) from error

    def _note_unsent(self, producer: LibrdkafkaProducer, token: int, error: KafkaError) -> None:
        """Report an unqueued message: librdkafka refused the message, or has ended."""
        report = producer.judge(token, error, alone=True)
        if isinstance(report, Failed):
            producer.finished = True
            if error.fatal():
                report = Failed(token, AFTER_A_FAILURE)
        self._reports.append(report)

    def _unavailable(self, error: KafkaError) -> BrokerUnavailable:
        """Make the exception for an error of the producer as a whole.

        Where a topic or a message is at fault, time, or a producer made anew, heals the error: only
        a fault of ours is one that somebody must mend.
        """
        kind = BrokerUnusable if fault_of(error) is Fault.OURS else BrokerUnavailable
        return kind(f"Kafka at {self._address}: {explain(error)}")

    def _note_not_committed(self, producer: LibrdkafkaProducer, error: KafkaError) -> None:
        """Finish the producer, or raise where the same commit may be tried again."""
        if error.retriable() and not error.txn_requires_abort():
            raise self._unavailable(error)
        producer.fenced = producer.fenced or error.code() in FENCED
        producer.finished = True

    def _take_reports(self) -> list[Report]:
        reports, self._reports = self._reports, []
        if self._producer is not None:
            reports += self._producer.take_reports()
        return reports

    def _log_outage(self, producer: LibrdkafkaProducer, reports: list[Report]) -> None:
        """Log an outage; librdkafka waits for the end in silence."""
        if any(isinstance(report, Acknowledged) for report in reports):
            producer.away = None
            self._outage.over()
        elif producer.pending and producer.away is not None:
            self._outage.failed(
                f"what is queued waits until it is back: {explain(producer.away)}",
                answers=fault_of(producer.away) is Fault.OURS,
            )

    def _fenced_error(self) -> Fenced:
        return Fenced(f"another producer took over the transactions of {self._transactional_id}")
