"""Receiving from Kafka as a member of a consumer group, through librdkafka."""

import logging
from collections.abc import Sequence
from typing import cast

from confluent_kafka import KafkaError, KafkaException, Message

from brokers.base import Headers, Record
from brokers.errors import BrokerError, BrokerUnavailable
from brokers.kafka.address import KafkaAddress
from brokers.librdkafka.config import error_of, explained
from brokers.librdkafka.member import Member

logger = logging.getLogger(__name__)

_TAKEN_AWAY = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._ASSIGNMENT_LOST,  # noqa: SLF001 - librdkafka's own errors are named so
    }
)


class LibrdkafkaSubscription:
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
            found = member.receive(timeout=timeout, limit=limit)
        except (KafkaException, RuntimeError) as error:
            self._leave()
            raise self._unavailable(error) from error
        if not found and member.is_away:
            # It is kept: it comes back by itself, and sooner than a new one could join.
            raise BrokerUnavailable(f"no Kafka broker answers at {self._address}: {member.trouble}")
        prefix = self._address.prefix
        return [to_record(message, prefix) for message in found]

    def commit(self, records: Sequence[Record]) -> None:
        ends = _ends(records, self._address.prefix)
        mine = self._member.assigned() if self._member is not None else set()
        lost = sorted(set(ends) - mine)
        if lost:
            logger.info("not committed, no longer ours in group %s: %s", self._group, lost)
        offsets = {place: end for place, end in ends.items() if place in mine}
        if self._member is None or not offsets:
            return
        try:
            errors = self._member.commit(offsets)
        except KafkaException as error:
            errors = [error_of(error)]
        for each in errors:
            if each.code() not in _TAKEN_AWAY:
                raise self._unavailable(each)
            logger.info("not committed, group %s is rebalancing: %s", self._group, explained(each))

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

    def _leave(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            member.close()

    def _unavailable(self, error: BaseException | KafkaError) -> BrokerUnavailable:
        return BrokerUnavailable(f"Kafka at {self._address}: {explained(error)}")


def to_record(message: Message, prefix: str) -> Record:
    return Record(
        topic=(message.topic() or "").removeprefix(prefix),
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=message.key(),
        value=message.value(),
        headers=_headers(message),
    )


def _headers(message: Message) -> Headers:
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return tuple((name, value or b"") for name, value in headers)


def _ends(records: Sequence[Record], prefix: str) -> dict[tuple[str, int], int]:
    ends: dict[tuple[str, int], int] = {}
    for record in records:
        place = (prefix + record.topic, record.partition)
        ends[place] = max(ends.get(place, 0), record.offset + 1)
    return ends
