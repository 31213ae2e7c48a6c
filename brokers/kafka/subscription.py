"""Receiving from Kafka as a member of a consumer group, through either client."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from brokers.base import Record
from brokers.errors import (
    BrokerConfigurationError,
    BrokerError,
    BrokerUnavailable,
    BrokerUnusable,
)
from brokers.kafka.address import KafkaAddress
from brokers.kafka.broken_partitions import Place
from brokers.kafka.topic_shapes import TopicWatch
from saga_runtime.logs import get_logger

logger = get_logger(__name__)

NOT_UTF8 = "a header's name is not UTF-8"


class MemberLost(BrokerError):  # noqa: N818 - states the fact
    """Raised when a member cannot go on: another one has to join. `lasting`: the broker is there,
    and the next one will not do better until somebody does what the text says."""

    def __init__(self, reason: str, *, lasting: bool) -> None:
        super().__init__(reason)
        self.lasting = lasting


class Member(Protocol):
    """One membership of a consumer group."""

    @property
    def is_joined(self) -> bool:
        """The group has taken it in, also where it has no partition for it."""

    @property
    def is_away(self) -> bool:
        """Nobody has answered for a while."""

    @property
    def is_stuck(self) -> bool:
        """It will never be given a partition again."""

    @property
    def is_turned_away(self) -> bool:
        """Somebody answers, but not to us, and time does not heal that: `trouble` says why."""

    @property
    def trouble(self) -> str:
        """What the client says about an outage."""

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        """Up to `limit` records, under their topics' names on the servers; waits up to `timeout`
        seconds for the first.

        Raises:
            MemberLost: never any more.
        """

    def assigned(self) -> set[Place]:
        """What the group has given to it."""

    def partition_counts(self) -> Mapping[str, int]:
        """The topics' partitions, by their names on the servers, as the client has last heard of
        them; nobody is asked who need not be. 0 where there is no such topic.

        Raises:
            whatever its client does where nobody answers.
        """

    def commit(self, ends: Mapping[Place, int]) -> list[str]:
        """Commit the offset of the next record in each of these; returns why some were left out,
        which the group gives to another member.

        Raises:
            BrokerUnavailable: not committed.
        """

    def close(self) -> None:
        """Leave the group."""


Join = Callable[[KafkaAddress, Sequence[str], str], Member]


class KafkaSubscription:
    """Joins its group with the first `receive()`.

    Args:
        join: makes a member of a group for topics, by their names on the servers.
        watch: looks at the topics' partitions now and then.
    """

    def __init__(
        self,
        address: KafkaAddress,
        topics: Sequence[str],
        group: str,
        *,
        join: Join,
        watch: TopicWatch,
    ) -> None:
        self._address = address
        self._topics = tuple(address.named(topic) for topic in topics)
        self._group = address.named(group)
        self._join = join
        self._watch = watch
        self._member: Member | None = None
        self._closed = False

    @property
    def is_joined(self) -> bool:
        return self._member is not None and self._member.is_joined

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        member = self._joined()
        try:
            found = member.receive(timeout=timeout, limit=limit)
        except MemberLost as error:
            self._leave()
            kind = BrokerUnusable if error.lasting else BrokerUnavailable
            raise kind(str(error)) from error
        if not found:
            self._look_after(member)
        self._watch.look(member.partition_counts)
        return [self._with_our_name(record) for record in found] if self._address.prefix else found

    def commit(self, records: Sequence[Record]) -> None:
        ends = self._ends(records)
        mine = self._member.assigned() if self._member is not None else set()
        lost = sorted(set(ends) - mine)
        if lost:
            logger.info("offsets not committed: group %s has given away %s", self._group, lost)
        offsets = {place: end for place, end in ends.items() if place in mine}
        if self._member is not None and offsets:
            for reason in self._member.commit(offsets):
                logger.info(
                    "offsets not committed: group %s is rebalancing: %s", self._group, reason
                )

    def close(self) -> None:
        self._closed = True
        self._leave()

    def _joined(self) -> Member:
        if self._closed:
            raise BrokerUnavailable("the subscription is closed")
        if self._member is None:
            try:
                self._member = self._join(self._address, self._topics, self._group)
            except BrokerConfigurationError as error:
                raise BrokerUnusable(str(error)) from error
        return self._member

    def _look_after(self, member: Member) -> None:
        """A member whose broker is away is kept: it comes back by itself, and sooner than a new
        one could join."""
        if member.is_away:
            if member.is_turned_away:
                raise BrokerUnusable(f"Kafka at {self._address}: {member.trouble}")
            raise BrokerUnavailable(f"no Kafka broker answers at {self._address}: {member.trouble}")
        if member.is_stuck:
            logger.warning("joining group %s does not end; joining again", self._group)
            self._leave()

    def _leave(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            member.close()

    def _ends(self, records: Sequence[Record]) -> dict[Place, int]:
        ends: dict[Place, int] = {}
        for record in records:
            place = (self._address.named(record.topic), record.partition)
            ends[place] = max(ends.get(place, 0), record.offset + 1)
        return ends

    def _with_our_name(self, record: Record) -> Record:
        return replace(record, topic=record.topic.removeprefix(self._address.prefix))
