"""Define the Protocols that every broker implements, and the messages, records and reports.

`tests/integration/brokers/test_contract.py` holds each implementation to them. All brokers
guarantee:

- Messages with one key are received in the order in which they were published.
- `Acknowledged` is reported only when the broker has the message for good.
- A record received but not committed is received again by the next subscription of the group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]


class Message(NamedTuple):  # a tuple is made in half the time of a frozen dataclass
    """A message to publish.

    Attributes:
        topic: its name, without a prefix of the broker's.
        key: chooses the partition; messages with one key keep their order.
        value: the body, published byte for byte.
        headers: names and values; a name may stand there twice.
    """

    topic: str
    key: str
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Record:
    """A received message, with its place on the broker.

    Attributes:
        topic: its name, without a prefix of the broker's.
        partition: the partition's number; 0 where a broker has no partitions.
        offset: its position in the partition; rises with each record.
        key: None where the publisher gave none.
        value: None where the publisher gave none.
        headers: names and values; an absent value is empty.
        unreadable: why a part could not be read, else empty. The remaining parts are unchanged.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    unreadable: str = ""

    @property
    def place(self) -> str:
        """Topic, partition and offset, as `orders.commands/3/17`."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Acknowledged(NamedTuple):  # there is one for each message
    """Report a message as stored for good: every subscriber will receive the message."""

    token: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Report a message as never acceptable to the broker: too large, no such topic.

    Attributes:
        token: the message's token.
        reason: the broker's words, on one line.
        unsent: refused before anything was sent, so no further message can be meant.
    """

    token: int
    reason: str
    unsent: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """Report an unknown outcome: the message may or may not have arrived, so publish again.

    Attributes:
        token: the message's token.
        reason: the broker's words, on one line.
        only_it: the broker answers, and takes messages of further topics.
        lasting: the broker answers, and takes no message until `reason` is heeded; time alone does
            not help.
        in_company: the message was refused in a batch of several; the next attempt sends a batch of
            a single message.
    """

    token: int
    reason: str
    only_it: bool = False
    lasting: bool = False
    in_company: bool = False


Report = Acknowledged | Refused | Failed


class Publisher(Protocol):
    """Publish messages, and report the outcome of each; for one thread."""

    def publish(self, message: Message, *, token: int) -> bool:
        """Queue a message, without blocking for long.

        After a queued message has failed, no later message of the key is sent before `reports()`
        has returned the failure.

        Args:
            message: the message to publish.
            token: names the message in its report.

        Returns:
            Whether the message was queued. Otherwise there is a report already, and a later message
            of the key must wait until `reports()` has returned the report.

        Raises:
            BrokerUnavailable: the message was not queued and gets no report. Where the error is
                `QueueFull`, there are reports to wait for.
            Fenced: no message will be queued any more; only with a transactional id.
        """

    def reports(self, *, timeout: float) -> list[Report]:
        """Fetch the reports since the last call.

        Args:
            timeout: seconds to wait for the first report.
        """

    def commit(self, *, timeout: float) -> None:
        """Make all messages since the last call visible, or none of them.

        Does nothing without a transactional id. With an id, no message is received or reported
        `Acknowledged` before the commit. Where a message is refused or fails, nothing is committed,
        and the remaining messages are reported `Failed`; a message refused `unsent` belongs to no
        transaction. Commit before the server gives up an open transaction, in Kafka after a minute.

        Args:
            timeout: seconds.

        Raises:
            BrokerUnavailable: the outcome is not known yet: call `commit()` again, or `purge()`.
            Fenced: nothing was committed; each message is reported `Failed`.
        """

    def purge(self) -> None:
        """Give up the unacknowledged messages: each is reported `Failed`, by the next `reports()`.

        The publisher can be used again.
        """

    def close(self) -> None:
        """Purge, and free every connection."""


class TransactionalPublisher(Publisher, Protocol):
    """Publish in transactions: made by `Broker.publisher()` for a transactional id."""

    @property
    def is_ready(self) -> bool:
        """Whether the next message belongs to the latest takeover of the id.

        The id is taken over by `take_over()` or by a first message, and again after any failure.
        """

    def take_over(self) -> None:
        """Take the id from every other publisher now, rather than with the next message.

        Raises:
            BrokerUnavailable: the owner of the id is not known.
            Fenced: a later publisher has taken the id over.
        """


class Subscription(Protocol):
    """Receive records as one member of a group, and commit them; for one thread."""

    @property
    def is_joined(self) -> bool:
        """Whether the group has accepted the subscription, be it without a partition."""

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        """Receive records.

        A record with an unreadable part is received too, see `Record.unreadable`. A partition where
        nothing more can be read is named in the log and tried again, while further partitions go
        on.

        Args:
            timeout: seconds to wait for the first record.
            limit: the most records.

        Raises:
            BrokerUnavailable: no server answers; the subscription may be used again.
        """

    def commit(self, records: Sequence[Record]) -> None:
        """Mark these records, and all before them in their partitions, as done for the group.

        Raises:
            BrokerUnavailable: nothing is committed; the records may be received again.
        """

    def close(self) -> None:
        """Leave the group. Safe to call twice."""


class Broker(Protocol):
    """Make publishers and subscriptions. To make a broker connects to nothing."""

    in_process: bool
    """Whether messages never leave the process, so separate commands cannot share the broker."""

    has_transactions: bool
    """Whether `publisher()` takes a transactional id."""

    name: str
    """The URL without its password, for logs."""

    def check(self) -> None:
        """Ask the server for any answer.

        Raises:
            BrokerUnavailable: no server answers.
            BrokerConfigurationError: a server refuses us.
        """

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the missing topics.

        Args:
            topics: their names, without a prefix of the broker's.

        Raises:
            BrokerUnavailable: no server answers.
            BrokerConfigurationError: a server refuses us.
        """

    def publisher(self, *, transactional_id: str | None = None) -> Publisher:
        """Make a publisher, for one thread.

        Args:
            transactional_id: publish in transactions, see `Publisher.commit()`. Of all publishers
                with the same id, in any process, only the latest to take the id over may go on. The
                server refuses all messages of earlier publishers: the messages are reported
                `Failed`, and calls raise `Fenced` from then on.

        Raises:
            BrokerConfigurationError: the broker has no transactions.
        """

    def subscribe(self, topics: Sequence[str], *, group: str) -> Subscription:
        """Make a subscription, for one thread.

        Args:
            topics: their names, without a prefix of the broker's.
            group: subscriptions of one group share the records; a new group starts at the first
                message kept by the broker.
        """
