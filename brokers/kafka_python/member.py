"""One membership of a consumer group: a consumer, and what kafka-python does not notice itself."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition, errors
from kafka.consumer.fetcher import ConsumerRecord
from kafka.net.compat import KafkaNetClient
from kafka.structs import MemberState

from brokers.base import Record
from brokers.kafka.address import KafkaAddress
from brokers.kafka.broken_partitions import BrokenPartitions, Place
from brokers.kafka.faults import Fault
from brokers.kafka.subscription import NOT_UTF8, MemberLost
from brokers.kafka.topic_shapes import HEARD_EVERY_MS
from brokers.kafka_python.connecting import (
    CLIENT_ERRORS,
    connect,
    explained,
    fault,
    is_connected,
    unavailable,
)
from brokers.kafka_python.tolerant_records import NotUtf8, TolerantRecords, UnreadableBatch

CONNECT_TIMEOUT_MS = 2_000
REQUEST_TIMEOUT_MS = 10_000  # after it a silent connection is closed, and the request repeated
CLOSE_TIMEOUT_MS = 2_000
COMMIT_TIMEOUT_MS = 5_000
SESSION_TIMEOUT_MS = 10_000  # how long a killed member's partitions wait for another
METADATA_TIMEOUT = 2.0
AWAY_AFTER = 2.0
STUCK_AFTER = 30.0

_TAKEN_AWAY = (
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
    errors.RebalanceInProgressError,
)


class KafkaPythonMember:
    """
    Raises:
        BrokerError: no broker answers, or not to us.
    """

    def __init__(self, address: KafkaAddress, topics: Sequence[str], group: str) -> None:
        self._address = address
        self._consumer: KafkaConsumer
        self._net_client: KafkaNetClient
        self._consumer, self._net_client = connect(
            KafkaConsumer,
            address,
            bootstrap_timeout_ms=CONNECT_TIMEOUT_MS,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            metadata_max_age_ms=HEARD_EVERY_MS,
            metrics_enabled=False,
        )
        self._consumer._fetcher.PartitionRecords = TolerantRecords  # noqa: SLF001 - no other way in
        self._broken = BrokenPartitions()
        self._answered_at = self._settled_at = time.monotonic()
        self._topics = tuple(topics)
        self._consumer.subscribe(topics)
        self._await_metadata(topics)

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        self._resume_due()
        try:
            found = self._consumer.poll(timeout_ms=int(timeout * 1000), max_records=limit)
        except UnreadableBatch as error:
            self._stand_still(error)
            return []
        except CLIENT_ERRORS as error:
            # A record that is corrupt on the broker's own disk stays so.
            is_corrupt = isinstance(error, errors.CorruptRecordError)
            lasting = is_corrupt or fault(error) is not Fault.BROKER
            raise MemberLost(self._told(error), lasting=lasting) from error
        except Exception as error:  # a fault of the client's: the next member may meet it too
            raise MemberLost(self._told(error), lasting=True) from error
        if found:
            self._answered_at = self._settled_at = time.monotonic()
        return [_record(each) for records in found.values() for each in records]

    def assigned(self) -> set[Place]:
        return {(place.topic, place.partition) for place in self._consumer.assignment()}

    def partition_counts(self) -> Mapping[str, int]:
        cluster = self._net_client.cluster
        return {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in self._topics}

    def commit(self, ends: Mapping[Place, int]) -> list[str]:
        offsets = {
            TopicPartition(*place): OffsetAndMetadata(end, "", -1) for place, end in ends.items()
        }
        try:
            self._consumer.commit(offsets, timeout_ms=COMMIT_TIMEOUT_MS)
        except _TAKEN_AWAY as error:
            return [explained(error)]
        except CLIENT_ERRORS as error:
            raise unavailable(self._address, error) from error
        return []

    is_turned_away = False
    """kafka-python keeps it to itself, until it connects anew."""

    @property
    def trouble(self) -> str:
        """kafka-python keeps it to itself."""
        return "no connection"

    @property
    def is_away(self) -> bool:
        """Nobody has answered for a while: `poll()` says nothing of that."""
        if is_connected(self._net_client):
            self._answered_at = time.monotonic()
        return time.monotonic() - self._answered_at >= AWAY_AFTER

    @property
    def is_joined(self) -> bool:
        return bool(self._consumer.group_metadata().state == MemberState.STABLE)

    @property
    def is_stuck(self) -> bool:
        """kafka-python forgets an assignment for ever where a `poll()` ends while it joins because
        the topics have changed: it neither asks again nor sends heartbeats."""
        if self.is_joined:
            self._settled_at = time.monotonic()
        return time.monotonic() - self._settled_at >= STUCK_AFTER

    def close(self) -> None:
        with suppress(*CLIENT_ERRORS):
            self._consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_MS)
        with suppress(*CLIENT_ERRORS):
            self._net_client.close()

    def _told(self, error: Exception) -> str:
        return f"Kafka at {self._address}: {explained(error)}"

    def _stand_still(self, error: UnreadableBatch) -> None:
        """Read nothing of that partition for a while: the others would wait for it each time."""
        reason = explained(error.__cause__ or error)
        self._broken.add((error.place.topic, error.place.partition), error.offset, reason)
        if error.place in self._consumer.assignment():
            self._consumer.pause(error.place)

    def _resume_due(self) -> None:
        mine = self._consumer.assignment()
        for place in map(TopicPartition._make, self._broken.due()):
            if place in mine:
                self._consumer.resume(place)

    def _await_metadata(self, topics: Sequence[str]) -> None:
        """Whoever joins before it knows the topics' partitions joins twice, and may be stuck."""
        cluster = self._net_client.cluster
        deadline = time.monotonic() + METADATA_TIMEOUT
        while time.monotonic() < deadline:
            if all(cluster.partitions_for_topic(topic) for topic in topics):
                return
            time.sleep(0.01)


def _record(found: ConsumerRecord) -> Record:
    return Record(
        topic=found.topic,
        partition=found.partition,
        offset=found.offset,
        key=found.key,
        value=found.value,
        headers=tuple((name, value or b"") for name, value in found.headers),
        unreadable=NOT_UTF8 if any(type(name) is NotUtf8 for name, _ in found.headers) else "",
    )
