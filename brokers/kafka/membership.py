"""Define one membership of a consumer group, which each Kafka client implements."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from brokers.base import Record
from brokers.errors import BrokerError
from brokers.kafka.address import KafkaAddress
from brokers.kafka.broken_partitions import Place

NOT_UTF8 = "a header's name is not UTF-8"
"""What `Record.unreadable` begins with where the name of a header cannot be decoded."""


class MemberLost(BrokerError):  # noqa: N818 - states the fact
    """Raised when a member cannot go on, so that a new member has to join in its place.

    Attributes:
        lasting: a new member will fail alike until somebody does what the error's text says.
    """

    def __init__(self, reason: str, *, lasting: bool) -> None:
        super().__init__(reason)
        self.lasting = lasting


class Member(Protocol):
    """Take part in a consumer group, from joining to leaving; for one thread."""

    @property
    def is_joined(self) -> bool:
        """Whether the group has accepted the member, be it without a partition."""

    @property
    def is_away(self) -> bool:
        """Whether no server has answered for a while."""

    @property
    def is_stuck(self) -> bool:
        """Whether the member will never receive a partition again."""

    @property
    def is_unusable(self) -> bool:
        """Whether a server refuses us for good; `trouble` says why."""

    @property
    def trouble(self) -> str:
        """What the client says about the present outage, on one line."""

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        """Receive up to `limit` records, under their topics' names on the servers.

        Args:
            timeout: seconds to wait for the first record.
            limit: the most records.

        Raises:
            MemberLost: no further call will work.
        """

    def assigned(self) -> set[Place]:
        """List the partitions that the group has assigned to the member."""

    def partition_counts(self) -> Mapping[str, int]:
        """Count the partitions of each subscribed topic, at best without asking a server.

        Returns:
            By a topic's name on the servers, the number that the client heard last; 0 for a topic
            that does not exist.

        Raises:
            Exception: any error of the client, where no server answers.
        """

    def commit(self, ends: Mapping[Place, int]) -> list[str]:
        """Commit offsets.

        Args:
            ends: for each partition, the offset of the next record to receive.

        Returns:
            Why some partitions were left out: the group now assigns them to another member.

        Raises:
            BrokerUnavailable: nothing is committed.
        """

    def close(self) -> None:
        """Leave the group."""


Join = Callable[[KafkaAddress, Sequence[str], str], Member]
"""Joins a group: an address, the topics' and the group's names on the servers."""
