"""Take part in a consumer group through kafka-python, and notice what it does not notice."""

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
from brokers.kafka.membership import NOT_UTF8, MemberLost
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming, milliseconds
from brokers.kafka_python.connecting import connect, is_connected
from brokers.kafka_python.faults import CLIENT_ERRORS, explain, fault_of, unavailable
from brokers.kafka_python.tolerant_records import NotUtf8, TolerantRecords, UnreadableBatch

_TAKEN_AWAY = (
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
    errors.RebalanceInProgressError,
)


class KafkaPythonMember:
    """Be one member of a group, by a kafka-python consumer; see `brokers.kafka.membership.Member`.

    Raises:
        BrokerError: no server answers, or a server refuses us.
    """

    is_unusable = False
    """kafka-python does not say that a server refuses us, until it connects anew."""

    trouble = "no connection"
    """kafka-python does not say why a server is away."""

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
        self._consumer: KafkaConsumer
        self._net_client: KafkaNetClient
        self._consumer, self._net_client = connect(
            KafkaConsumer,
            address,
            bootstrap_timeout_ms=milliseconds(timing.connect),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=milliseconds(timing.session),
            request_timeout_ms=milliseconds(timing.request),
            metadata_max_age_ms=milliseconds(timing.refresh),
            metrics_enabled=False,
        )
        self._consumer._fetcher.PartitionRecords = TolerantRecords  # noqa: SLF001 - no other way in
        self._broken = BrokenPartitions(timing)
        self._answered_at = self._settled_at = time.monotonic()
        self._topics = tuple(topics)
        self._consumer.subscribe(topics)
        self._await_partitions(topics)

    @property
    def is_away(self) -> bool:
        """Whether no server has answered for a while, which `poll()` does not say."""
        if is_connected(self._net_client):
            self._answered_at = time.monotonic()
        return time.monotonic() - self._answered_at >= self._timing.away_after

    @property
    def is_joined(self) -> bool:
        """Whether the group has accepted the member."""
        return bool(self._consumer.group_metadata().state == MemberState.STABLE)

    @property
    def is_stuck(self) -> bool:
        """Whether the member will never receive a partition again.

        kafka-python forgets an assignment for good where a `poll()` ends while the consumer joins
        because the topics have changed: it neither asks again nor sends heartbeats.
        """
        if self.is_joined:
            self._settled_at = time.monotonic()
        return time.monotonic() - self._settled_at >= self._timing.stuck_after

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        """Receive records; see `Member.receive()`."""
        self._resume_due_partitions()
        try:
            found = self._consumer.poll(timeout_ms=int(timeout * 1000), max_records=limit)
        except UnreadableBatch as error:
            self._pause_partition(error)
            return []
        except CLIENT_ERRORS as error:
            # A record that is corrupt on the broker's own disk stays so.
            is_corrupt = isinstance(error, errors.CorruptRecordError)
            lasting = is_corrupt or fault_of(error) is not Fault.BROKER
            raise self._lost(error, lasting=lasting) from error
        except Exception as error:  # a fault of the client's: the next member may meet it too
            raise self._lost(error, lasting=True) from error
        if found:
            self._answered_at = self._settled_at = time.monotonic()
        return [_record(each) for records in found.values() for each in records]

    def assigned(self) -> set[Place]:
        """List the member's partitions."""
        return {(place.topic, place.partition) for place in self._consumer.assignment()}

    def partition_counts(self) -> Mapping[str, int]:
        """Count the topics' partitions, as the client heard last."""
        cluster = self._net_client.cluster
        return {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in self._topics}

    def commit(self, ends: Mapping[Place, int]) -> list[str]:
        """Commit offsets; see `Member.commit()`."""
        offsets = {
            TopicPartition(*place): OffsetAndMetadata(end, "", -1) for place, end in ends.items()
        }
        try:
            self._consumer.commit(offsets, timeout_ms=milliseconds(self._timing.commit))
        except _TAKEN_AWAY as error:
            return [explain(error)]
        except CLIENT_ERRORS as error:
            raise unavailable(self._address, error) from error
        return []

    def close(self) -> None:
        """Leave the group, and free the connections."""
        with suppress(*CLIENT_ERRORS):
            timeout_ms = milliseconds(self._timing.close)
            self._consumer.close(autocommit=False, timeout_ms=timeout_ms)
        with suppress(*CLIENT_ERRORS):
            self._net_client.close()

    def _lost(self, error: Exception, *, lasting: bool) -> MemberLost:
        return MemberLost(f"Kafka at {self._address}: {explain(error)}", lasting=lasting)

    def _pause_partition(self, error: UnreadableBatch) -> None:
        """Read nothing of a broken partition for a while: each `poll()` would fail for all."""
        reason = explain(error.__cause__ or error)
        self._broken.add((error.place.topic, error.place.partition), error.offset, reason)
        if error.place in self._consumer.assignment():
            self._consumer.pause(error.place)

    def _resume_due_partitions(self) -> None:
        mine = self._consumer.assignment()
        for place in map(TopicPartition._make, self._broken.pop_due()):
            if place in mine:
                self._consumer.resume(place)

    def _await_partitions(self, topics: Sequence[str]) -> None:
        """Wait until the client knows the topics' partitions, for a limited time.

        A consumer that joins before it knows them joins twice, and may be stuck.
        """
        cluster = self._net_client.cluster
        deadline = time.monotonic() + self._timing.partitions
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
