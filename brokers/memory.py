"""memory://: a broker inside one process, without a loss when the process is killed.

A message is acknowledged only when every subscribed group has committed the message, and a message
on a command topic waits until there is a group. So the outbox keeps each row until a consumer has
the message for good: the row is the durable copy, and the broker only the way there.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from brokers.base import Acknowledged, Failed, Message, Record, Refused, Report
from brokers.errors import BrokerConfigurationError

COMMAND_TOPIC_SUFFIX = ".commands"
MAX_MESSAGE_BYTES = 1_048_576  # Kafka's default for a topic

_brokers: dict[str, "MemoryBroker"] = {}
_brokers_lock = threading.Lock()


def memory_broker(name: str = "") -> "MemoryBroker":
    """Return the broker with this name in this process; the first call makes it."""
    with _brokers_lock:
        return _brokers.setdefault(name, MemoryBroker(name))


@dataclass(slots=True)
class _Entry:
    offset: int
    message: Message
    acknowledge: Callable[[], None]
    owner: "MemoryPublisher"


@dataclass(slots=True)
class _Topic:
    entries: deque[_Entry] = field(default_factory=deque)
    # Refused commands are kept with their offsets: a later process must not use these again.
    next_offset: int = field(default_factory=lambda: time.time_ns() // 1000)
    committed: dict[str, int] = field(default_factory=dict)
    """By group, the offset of the first uncommitted message."""

    def trim(self, *, is_command: bool) -> None:
        """Acknowledge and drop the messages committed by every group."""
        done = min(self.committed.values(), default=0 if is_command else self.next_offset)
        while self.entries and self.entries[0].offset < done:
            self.entries.popleft().acknowledge()


class MemoryBroker:
    """Hold the topics of one name; see `brokers.base.Broker`.

    Args:
        name: brokers of different names share nothing.
        max_message_bytes: a larger message is refused.

    Attributes:
        changed: guards the topics; notified of each message, commit and report.
    """

    in_process = True
    has_transactions = False

    def __init__(self, name: str = "", *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.name = f"memory://{name}"
        self.max_message_bytes = max_message_bytes
        self.changed = threading.Condition()
        self._topics: dict[str, _Topic] = {}

    def check(self) -> None:
        """Do nothing: the broker is always there."""

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the missing topics."""
        with self.changed:
            for name in topics:
                self._topic(name)

    def publisher(self, *, transactional_id: str | None = None) -> "MemoryPublisher":
        """Make a publisher; see `Broker.publisher()`."""
        if transactional_id is not None:
            raise BrokerConfigurationError(f"{self.name} has no transactions")
        return MemoryPublisher(self)

    def subscribe(self, topics: Sequence[str], *, group: str) -> "MemorySubscription":
        """Make a subscription; see `Broker.subscribe()`."""
        with self.changed:
            for name in topics:
                topic = self._topic(name)
                first = topic.entries[0].offset if topic.entries else topic.next_offset
                topic.committed.setdefault(group, first)
        return MemorySubscription(self, tuple(topics), group)

    def append(
        self, message: Message, acknowledge: Callable[[], None], owner: "MemoryPublisher"
    ) -> None:
        """Add a message to its topic.

        Args:
            message: the message.
            acknowledge: called once every group has committed the message.
            owner: may withdraw the message.
        """
        with self.changed:
            topic = self._topic(message.topic)
            topic.entries.append(_Entry(topic.next_offset, message, acknowledge, owner))
            topic.next_offset += 1
            self._trim(message.topic)
            self.changed.notify_all()

    def withdraw(self, owner: "MemoryPublisher") -> None:
        """Remove the unacknowledged messages of a publisher."""
        with self.changed:
            for topic in self._topics.values():
                topic.entries = deque(e for e in topic.entries if e.owner is not owner)

    def committed(self, topic: str, group: str) -> int:
        """Return the offset of the group's first uncommitted message."""
        return self._topic(topic).committed[group]

    def commit(self, topic: str, group: str, offset: int) -> None:
        """Commit all messages before an offset for a group."""
        with self.changed:
            committed = self._topic(topic).committed
            committed[group] = max(committed[group], offset)
            self._trim(topic)
            self.changed.notify_all()

    def read(self, topic: str, position: int, limit: int) -> list[Record]:
        """Read up to `limit` records from an offset on; the caller holds `changed`."""
        entries = self._topic(topic).entries
        found = [entry for entry in entries if entry.offset >= position][:limit]
        return [
            Record(
                topic=topic,
                partition=0,
                offset=entry.offset,
                key=entry.message.key.encode(),
                value=entry.message.value,
                headers=entry.message.headers,
            )
            for entry in found
        ]

    def _topic(self, name: str) -> _Topic:
        return self._topics.setdefault(name, _Topic())

    def _trim(self, name: str) -> None:
        self._topic(name).trim(is_command=name.endswith(COMMAND_TOPIC_SUFFIX))


class MemoryPublisher:
    """Publish within the process; see `brokers.base.Publisher`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._pending: set[int] = set()
        self._reports: list[Report] = []

    def publish(self, message: Message, *, token: int) -> bool:
        """Add a message to its topic, or refuse it for its size."""
        size = len(message.value) + sum(len(k) + len(v) for k, v in message.headers)
        if size > self._broker.max_message_bytes:
            limit = self._broker.max_message_bytes
            reason = f"message of {size} bytes; the limit is {limit}"
            self._reports.append(Refused(token, reason, unsent=True))
            return False
        self._pending.add(token)
        self._broker.append(message, lambda: self._acknowledge(token), self)
        return True

    def reports(self, *, timeout: float) -> list[Report]:
        """Fetch the reports; see `Publisher.reports()`."""
        with self._broker.changed:
            self._broker.changed.wait_for(lambda: bool(self._reports), timeout)
            reports, self._reports = self._reports, []
            return reports

    def commit(self, *, timeout: float) -> None:
        """Do nothing: there are no transactions."""

    def purge(self) -> None:
        """Remove the unacknowledged messages, and report each as `Failed`."""
        with self._broker.changed:
            self._broker.withdraw(self)
            self._reports += [Failed(token, "purged") for token in sorted(self._pending)]
            self._pending.clear()

    def close(self) -> None:
        """Purge."""
        self.purge()

    def _acknowledge(self, token: int) -> None:
        """Report a message; called by the broker, under `changed`."""
        self._pending.discard(token)
        self._reports.append(Acknowledged(token))


class MemorySubscription:
    """Receive within the process; see `brokers.base.Subscription`."""

    is_joined = True

    def __init__(self, broker: MemoryBroker, topics: tuple[str, ...], group: str) -> None:
        self._broker = broker
        self._group = group
        self._positions = {topic: broker.committed(topic, group) for topic in topics}

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        """Receive records; see `Subscription.receive()`."""
        deadline = time.monotonic() + timeout
        with self._broker.changed:
            while True:
                records = self._read(limit)
                remaining = deadline - time.monotonic()
                if records or remaining <= 0:
                    return records
                self._broker.changed.wait(remaining)

    def commit(self, records: Sequence[Record]) -> None:
        """Commit records; see `Subscription.commit()`."""
        ends: dict[str, int] = {}
        for record in records:
            ends[record.topic] = max(ends.get(record.topic, 0), record.offset + 1)
        for topic, offset in ends.items():
            self._broker.commit(topic, self._group, offset)

    def close(self) -> None:
        """Do nothing: uncommitted records stay for the group's next subscription."""

    def _read(self, limit: int) -> list[Record]:
        records: list[Record] = []
        for topic, position in self._positions.items():
            found = self._broker.read(topic, position, limit - len(records))
            if found:
                self._positions[topic] = found[-1].offset + 1
                records += found
        return records
