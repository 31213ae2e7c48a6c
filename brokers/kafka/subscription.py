"""Receiving from Kafka as a member of a consumer group."""

import logging
from collections.abc import Sequence

from kafka import OffsetAndMetadata, TopicPartition, errors
from kafka.consumer.fetcher import ConsumerRecord

from brokers.base import Record
from brokers.errors import BrokerError, BrokerUnavailable
from brokers.kafka.address import KafkaAddress
from brokers.kafka.client import CLIENT_ERRORS, explained
from brokers.kafka.member import Member

logger = logging.getLogger(__name__)

COMMIT_TIMEOUT_MS = 5_000

_TAKEN_AWAY = (
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
    errors.RebalanceInProgressError,
)


class KafkaSubscription:
    """Joins its group with the first `receive()`."""

    def __init__(self, address: KafkaAddress, topics: Sequence[str], group: str) -> None:
        self._address = address
        self._topics = tuple(address.named(topic) for topic in topics)
        self._group = address.named(group)
        self._member: Member | None = None
        self._closed = False

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        member = self._joined()
        try:
            found = member.consumer.poll(timeout_ms=int(timeout * 1000), max_records=limit)
        except CLIENT_ERRORS as error:
            self._leave()
            raise BrokerUnavailable(f"Kafka at {self._address}: {explained(error)}") from error
        if found:
            member.heard()
        else:
            self._look_after(member)
        prefix = self._address.prefix
        return [to_record(each, prefix) for records in found.values() for each in records]

    def commit(self, records: Sequence[Record]) -> None:
        ends = _ends(records, self._address.prefix)
        mine = self._member.consumer.assignment() if self._member is not None else set()
        lost = sorted(set(ends) - mine)
        if lost:
            logger.info("not committed, no longer ours in group %s: %s", self._group, lost)
        offsets = {place: end for place, end in ends.items() if place in mine}
        if self._member is None or not offsets:
            return
        try:
            self._member.consumer.commit(offsets, timeout_ms=COMMIT_TIMEOUT_MS)
        except _TAKEN_AWAY as error:
            logger.info("not committed, group %s is rebalancing: %s", self._group, explained(error))
        except CLIENT_ERRORS as error:
            raise BrokerUnavailable(f"Kafka at {self._address}: {explained(error)}") from error

    def close(self) -> None:
        self._closed = True
        self._leave()

    def _joined(self) -> Member:
        if self._closed:
            raise BrokerUnavailable("the subscription is closed")
        if self._member is None:
            try:
                self._member = Member(self._address, self._topics, self._group)
            except BrokerError as error:
                raise BrokerUnavailable(str(error)) from error
        return self._member

    def _look_after(self, member: Member) -> None:
        """A member whose broker is away is kept: it comes back by itself, and sooner than a new
        one could join."""
        if member.is_away:
            raise BrokerUnavailable(f"no Kafka broker answers at {self._address}")
        if member.is_stuck:
            logger.warning("joining group %s does not end; joining again", self._group)
            self._leave()

    def _leave(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            member.close()


def to_record(found: ConsumerRecord, prefix: str) -> Record:
    return Record(
        topic=found.topic.removeprefix(prefix),
        partition=found.partition,
        offset=found.offset,
        key=found.key,
        value=found.value,
        headers=tuple((name, value or b"") for name, value in found.headers),
    )


def _ends(records: Sequence[Record], prefix: str) -> dict[TopicPartition, OffsetAndMetadata]:
    ends: dict[TopicPartition, int] = {}
    for record in records:
        place = TopicPartition(prefix + record.topic, record.partition)
        ends[place] = max(ends.get(place, 0), record.offset + 1)
    return {place: OffsetAndMetadata(end, "", -1) for place, end in ends.items()}
