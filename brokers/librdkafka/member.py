"""Take part in a consumer group through librdkafka."""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from brokers.base import Record
from brokers.errors import BrokerError, BrokerUnusable
from brokers.kafka.address import KafkaAddress
from brokers.kafka.broken_partitions import BrokenPartitions, Place
from brokers.kafka.faults import Fault
from brokers.kafka.membership import MemberLost
from brokers.kafka.outcomes import late_answer, no_answer
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming, milliseconds
from brokers.librdkafka.connecting import make_client
from brokers.librdkafka.faults import explain, fault_of, kafka_error, unavailable
from brokers.librdkafka.records import record_of
from brokers.librdkafka.statistics import is_connected, partition_counts

STATISTICS_INTERVAL_MS = 500
"""Milliseconds between two statistics, librdkafka's only word on its connections."""

_TAKEN_AWAY = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._ASSIGNMENT_LOST,  # noqa: SLF001 - librdkafka's own errors are named so
    }
)


# Errors about a batch that librdkafka cannot read, or whose checksum is wrong.
_UNREADABLE = frozenset(
    {
        KafkaError._BAD_COMPRESSION,  # noqa: SLF001
        KafkaError._BAD_MSG,  # noqa: SLF001
        KafkaError._NOT_IMPLEMENTED,  # noqa: SLF001
        KafkaError._UNDERFLOW,  # noqa: SLF001
        KafkaError.INVALID_MSG,
    }
)


class LibrdkafkaMember:
    """Be one member of a group, by a librdkafka consumer; see `brokers.kafka.membership.Member`.

    Raises:
        BrokerUnavailable: no server answers.
        BrokerConfigurationError: librdkafka refuses the configuration.
    """

    is_stuck = False
    """librdkafka never forgets to ask for an assignment."""

    def __init__(
        self,
        address: KafkaAddress,
        topics: Sequence[str],
        group: str,
        *,
        timing: KafkaTiming = DEFAULT_TIMING,
    ) -> None:
        self._address = address
        self._timing = timing
        self._topics = tuple(topics)
        self._answered_at = time.monotonic()
        self._is_answered = False
        self._trouble: KafkaError | None = None
        self._broken = BrokenPartitions(timing)
        self._counts: Mapping[str, int] = {}
        self.is_joined = False
        callbacks = {"stats_cb": self._note_statistics, "error_cb": self._note_error}
        config = {**consumer_config(group, timing), **callbacks}
        self._consumer = make_client(Consumer, address, config, timing=timing)
        self._await_answer()
        self._consumer.subscribe(list(topics), on_assign=self._note_assignment)

    @property
    def is_away(self) -> bool:
        """Whether no server has been connected for a while."""
        return time.monotonic() - self._answered_at >= self._timing.away_after

    @property
    def is_unusable(self) -> bool:
        """Whether a server refuses us for good."""
        return self._trouble is not None and fault_of(self._trouble) is Fault.OURS

    @property
    def trouble(self) -> str:
        """The last error about the connection, on one line."""
        return explain(self._trouble) if self._trouble is not None else "no connection"

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        """Receive records; see `Member.receive()`."""
        try:
            self._resume_due_partitions()
            first = self._consumer.poll(timeout)
            if first is None:
                return []
            found = [first, *(self._consumer.consume(limit - 1, 0) if limit > 1 else ())]
            return self._readable(found)
        except (KafkaException, RuntimeError) as error:
            lasting = (
                isinstance(error, KafkaException)
                and fault_of(kafka_error(error)) is not Fault.BROKER
            )
            raise self._lost(error, lasting=lasting) from error
        except Exception as error:  # a fault of the client's: the next member may meet it too
            raise self._lost(error, lasting=True) from error

    def assigned(self) -> set[Place]:
        """List the member's partitions."""
        return {(each.topic, each.partition) for each in self._consumer.assignment()}

    def partition_counts(self) -> Mapping[str, int]:
        """Count the topics' partitions, by the statistics where these name every topic.

        The statistics name the topics with partitions assigned to the member. An unnamed topic may
        be gone, or be assigned wholly to further members: only the server can say.
        """
        known = {topic: self._counts.get(topic, 0) for topic in self._topics}
        return known if all(known.values()) else known | self._asked_counts()

    def _asked_counts(self) -> dict[str, int]:
        """Ask the server for all topics: a question about one topic may create the topic."""
        shown = self._consumer.list_topics(timeout=self._timing.partitions).topics
        return {name: len(shown[name].partitions) if name in shown else 0 for name in self._topics}

    def commit(self, ends: Mapping[Place, int]) -> list[str]:
        """Commit offsets; see `Member.commit()`.

        Without an answer, a commit takes as long as a session: librdkafka has no further limit.
        """
        offsets = [TopicPartition(topic, part, end) for (topic, part), end in ends.items()]
        try:
            done = self._consumer.commit(offsets=offsets, asynchronous=False)
            errors = [each.error for each in done if each.error is not None]
        except KafkaException as error:
            errors = [kafka_error(error)]
        for each in errors:
            if each.code() not in _TAKEN_AWAY:
                raise unavailable(self._address, each)
        return [explain(each) for each in errors]

    def close(self) -> None:
        """Leave the group.

        With an unanswered commit, librdkafka takes ten seconds to close: after a limited wait, the
        rest happens in the background.
        """
        closing = threading.Thread(target=self._close, name="kafka-leaving", daemon=True)
        closing.start()
        closing.join(self._timing.close)

    def _close(self) -> None:
        with suppress(KafkaException, RuntimeError):
            self._consumer.close()

    def _lost(self, error: Exception, *, lasting: bool) -> MemberLost:
        return MemberLost(f"Kafka at {self._address}: {explain(error)}", lasting=lasting)

    def _await_answer(self) -> None:
        try:
            self._consumer.list_topics(timeout=self._timing.connect)
        except KafkaException as error:
            self._consumer.poll(0)  # calls `_note_error()` and `_note_statistics()`
            self.close()
            raise self._no_answer(error) from error
        self._answered_at = time.monotonic()

    def _no_answer(self, error: KafkaException) -> BrokerError:
        reason = self.trouble if self._trouble is not None else explain(error)
        if self.is_unusable:
            return BrokerUnusable(f"Kafka at {self._address}: {reason}")
        if self._is_answered:
            return late_answer(self._address, reason)
        return no_answer(self._address, reason)

    def _readable(self, found: Sequence[Message]) -> list[Record]:
        """Return the readable records, up to the first unreadable batch of each partition.

        Records behind an unreadable batch are left for later: no commit may step over the batch.
        """
        broken: set[Place] = set()
        records = []
        for message in found:
            place = message.topic() or "", message.partition() or 0
            error = message.error()
            if error is not None and error.code() in _UNREADABLE:
                if place not in broken:
                    self._pause_partition(place, message.offset() or 0, explain(error))
                    broken.add(place)
            elif error is not None:
                self._raise_or_note(error)
            elif place not in broken:
                records.append(record_of(message))
        return records

    def _raise_or_note(self, error: KafkaError) -> None:
        if error.fatal() or fault_of(error) in (Fault.OURS, Fault.TOPIC):
            raise KafkaException(error)
        self._note_error(error)

    def _pause_partition(self, place: Place, offset: int, reason: str) -> None:
        """Read nothing of a partition for a while, and then read from the offset on again.

        The client may have fetched records beyond the offset: `seek()` drops them.
        """
        self._broken.add(place, offset, reason)
        if place in self.assigned():
            self._consumer.pause([TopicPartition(*place)])
            self._consumer.seek(TopicPartition(*place, offset))

    def _resume_due_partitions(self) -> None:
        mine = self.assigned() if (due := self._broken.pop_due()) else set()
        self._consumer.resume([TopicPartition(*place) for place in due if place in mine])

    def _note_statistics(self, text: str) -> None:
        statistics = json.loads(text)
        self._counts = partition_counts(statistics)
        if is_connected(statistics):
            self._is_answered = True
            self._answered_at = time.monotonic()

    def _note_assignment(self, _consumer: Consumer, _places: list[TopicPartition]) -> None:
        self.is_joined = True

    def _note_error(self, error: KafkaError) -> None:
        self._trouble = error


def consumer_config(group: str, timing: KafkaTiming) -> dict[str, object]:
    """Return the settings of a consumer without automatic commits."""
    return {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "session.timeout.ms": milliseconds(timing.session),
        "heartbeat.interval.ms": milliseconds(timing.heartbeat),
        "fetch.wait.max.ms": 100,
        "check.crcs": True,
        # Members with kafka-python may be in the same group.
        "partition.assignment.strategy": "range,roundrobin",
        # While librdkafka asks an absent topic for its first offset, it does not ask whether the
        # topic exists: this refresh tells it.
        "topic.metadata.refresh.interval.ms": milliseconds(timing.refresh),
        "statistics.interval.ms": STATISTICS_INTERVAL_MS,
    }
