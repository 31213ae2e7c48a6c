"""Receive from Kafka as a member of a consumer group, through either client."""

from collections.abc import Sequence
from dataclasses import replace

from brokers.base import Record
from brokers.errors import BrokerConfigurationError, BrokerUnavailable, BrokerUnusable
from brokers.kafka.address import KafkaAddress
from brokers.kafka.broken_partitions import Place
from brokers.kafka.membership import Join, Member, MemberLost
from brokers.kafka.outcomes import no_answer
from brokers.kafka.topic_shapes import TopicWatch
from saga_runtime.logs import get_logger

logger = get_logger(__name__)


class KafkaSubscription:
    """Subscribe a group to topics: join with the first `receive()`, and join again when lost.

    Args:
        address: where Kafka is; its prefix is put before the names of topics and group.
        topics: the topics' names, without the prefix.
        group: the group's name, without the prefix.
        join: makes a member, by one of the clients.
        watch: compares the topics' partitions from time to time.
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
        """See `Subscription.is_joined`."""
        return self._member is not None and self._member.is_joined

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        """Receive records; see `Subscription.receive()`."""
        member = self._joined_member()
        try:
            found = member.receive(timeout=timeout, limit=limit)
        except MemberLost as error:
            self._leave()
            kind = BrokerUnusable if error.lasting else BrokerUnavailable
            raise kind(str(error)) from error
        if not found:
            self._raise_if_away(member)
        self._watch.look(member.partition_counts)
        return [self._without_prefix(record) for record in found] if self._address.prefix else found

    def commit(self, records: Sequence[Record]) -> None:
        """Commit records; see `Subscription.commit()`.

        A partition that the group has meanwhile assigned to another member is left out and logged:
        its records come again to that member.
        """
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
        """Leave the group for good."""
        self._closed = True
        self._leave()

    def _joined_member(self) -> Member:
        if self._closed:
            raise BrokerUnavailable("the subscription is closed")
        if self._member is None:
            try:
                self._member = self._join(self._address, self._topics, self._group)
            except BrokerConfigurationError as error:
                raise BrokerUnusable(str(error)) from error
        return self._member

    def _raise_if_away(self, member: Member) -> None:
        """Raise where the member's server is away; leave the group where the member is stuck.

        A member without a server is kept: the client reconnects by itself, and sooner than a new
        member could join.
        """
        if member.is_away:
            if member.is_unusable:
                raise BrokerUnusable(f"Kafka at {self._address}: {member.trouble}")
            raise no_answer(self._address, member.trouble)
        if member.is_stuck:
            logger.warning("joining group %s does not end; joining again", self._group)
            self._leave()

    def _leave(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            member.close()

    def _ends(self, records: Sequence[Record]) -> dict[Place, int]:
        """Find the offset behind the last of the records, for each partition."""
        ends: dict[Place, int] = {}
        for record in records:
            place = (self._address.named(record.topic), record.partition)
            ends[place] = max(ends.get(place, 0), record.offset + 1)
        return ends

    def _without_prefix(self, record: Record) -> Record:
        return replace(record, topic=record.topic.removeprefix(self._address.prefix))
