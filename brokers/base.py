"""The Protocols that every broker implements; `tests/integration/test_broker_contract.py` holds
each implementation to them.

Guarantees, for all of them:
- Messages with one key are received in the order in which they were published.
- `Acknowledged` is reported only when the broker has the message for good.
- What a subscription has received but not committed is received again by the next one of its group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]


class Message(NamedTuple):  # a tuple is made in half the time of a frozen dataclass
    """What is published: `value` goes out byte for byte, `key` chooses the partition."""

    topic: str
    key: str
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Record:
    """What is received: a message's parts and the place where the broker keeps it.

    `unreadable` says what of it the client could not read; the other parts are as they came.
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
    """The broker has the message for good: every subscriber will receive it."""

    token: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker judged this message by itself and will never take it: too large, no such topic.
    `unsent`: nothing had to be sent to know, so that no other message can be meant."""

    token: int
    reason: str
    unsent: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The message may or may not have arrived, and says nothing against it: publish it again.
    `only_it`: the broker is there, and takes others. `lasting`: the broker is there, and takes none
    until somebody does what `reason` says; time does not heal it. `in_company`: it was refused
    together with others, and the next time it will be sent alone."""

    token: int
    reason: str
    only_it: bool = False
    lasting: bool = False
    in_company: bool = False


Report = Acknowledged | Refused | Failed


class Publisher(Protocol):
    def publish(self, message: Message, *, token: int) -> bool:
        """Queue a message; its fate comes out of `reports()` under `token`. Never blocks for long.

        Returns whether it was queued. Otherwise its fate is known already, and a later message of
        its key must wait until `reports()` has told it. Of what was queued, no later message of a
        key is sent before the failure of an earlier one has been told.

        Raises:
            BrokerUnavailable: the message was not queued; where it is QueueFull, there are reports
                to wait for.
            Fenced: nor will one ever be; only with a transactional id.
        """

    def reports(self, *, timeout: float) -> list[Report]:
        """The delivery reports since the last call; waits up to `timeout` seconds for the first."""

    def commit(self, *, timeout: float) -> None:
        """Make what was published since the last call visible, all of it or nothing.

        Only for a publisher with a transactional id; without one it does nothing. Until then
        nobody receives those messages, and none is reported `Acknowledged`. Where one of them is
        refused or fails, nothing is committed, and the others are reported `Failed`; what was
        refused `unsent` is none of them. Call it before
        the server gives up an open transaction, in Kafka after a minute.

        Raises:
            BrokerUnavailable: it is not known yet; call it again, or `purge()`.
            Fenced: nothing was committed; each message is reported `Failed`.
        """

    def purge(self) -> None:
        """Give up what has not been acknowledged; each such message is reported `Failed`, at once
        or by the next `reports()`."""

    def close(self) -> None:
        """Purge, and free every connection."""


class TransactionalPublisher(Publisher, Protocol):
    """What `Broker.publisher()` makes of a transactional id."""

    @property
    def is_ready(self) -> bool:
        """Its next message would belong to the id as it was last taken over: by `take_over()`, or
        by a first message. Not so after anything has failed."""

    def take_over(self) -> None:
        """Take the id from every other publisher now, rather than with the next message.

        Raises:
            BrokerUnavailable: it is not known who has it.
            Fenced: somebody has taken it from this one before.
        """


class Subscription(Protocol):
    @property
    def is_joined(self) -> bool:
        """Its group has taken it in, also where it has no partition for it."""

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        """Up to `limit` records; waits up to `timeout` seconds for the first. One that cannot be
        read wholly is received too, and says so; a partition where nothing can be read any more is
        named in the log and tried again, while the others go on.

        Raises:
            BrokerUnavailable: no server answers; the same subscription may be used again.
        """

    def commit(self, records: Sequence[Record]) -> None:
        """The group is done with these and with all before them in their partitions.

        Raises:
            BrokerUnavailable: not committed; the records may be received again.
        """

    def close(self) -> None:
        """Leave the group. Safe to call twice."""


class Broker(Protocol):
    in_process: bool
    """True where messages never leave this process, so that separate commands cannot share them."""

    has_transactions: bool
    """True where `publisher()` takes a transactional id."""

    name: str
    """The URL without its password, for logs."""

    def check(self) -> None:
        """Ask the server whether it is there.

        Raises:
            BrokerUnavailable: no answer.
            BrokerConfigurationError: it answers, but not to us.
        """

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the topics that are missing."""

    def publisher(self, *, transactional_id: str | None = None) -> Publisher:
        """A publisher of its own for one thread.

        Args:
            transactional_id: puts messages into transactions, see `Publisher.commit()`. Of all
                publishers with the same id only the one that published first after the others may
                go on, in whichever process they are: the server refuses the others' messages, which
                are `Failed`, and their calls raise `Fenced`. Such a publisher stays fenced.

        Raises:
            BrokerConfigurationError: this broker has no transactions.
        """

    def subscribe(self, topics: Sequence[str], *, group: str) -> Subscription:
        """A subscription for one thread; a new group starts at the first message kept."""
