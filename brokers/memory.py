"""memory://: a broker that lives inside one process and loses nothing when that process is killed.

It acknowledges a message only when every group that subscribes to its topic has committed it, and a
message on a command topic waits until there is a group. So the outbox keeps each row until a
consumer has it for good: the row is the durable copy, and this is only the way there.
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
    """The broker of that name in this process."""
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
    # Offsets of another process's broker must not come again: they are kept with refused commands.
    next_offset: int = field(default_factory=lambda: time.time_ns() // 1000)
    committed: dict[str, int] = field(default_factory=dict)
    """For each group, the offset of the first message that it has not committed."""

    def trim(self, *, is_command: bool) -> None:
        """Acknowledge and drop what every group has committed."""
        done = min(self.committed.values(), default=0 if is_command else self.next_offset)
        while self.entries and self.entries[0].offset < done:
            self.entries.popleft().acknowledge()


class MemoryBroker:
    in_process = True
    has_transactions = False

    def __init__(self, name: str = "", *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.name = f"memory://{name}"
        self.max_message_bytes = max_message_bytes
        self.changed = threading.Condition()
        self._topics: dict[str, _Topic] = {}

    def check(self) -> None:
        """It is always there."""

    def ensure_topics(self, topics: Sequence[str]) -> None:
        with self.changed:
            for name in topics:
                self._topic(name)

    def publisher(self, *, transactional_id: str | None = None) -> "MemoryPublisher":
        if transactional_id is not None:
            raise BrokerConfigurationError(f"{self.name} has no transactions")
        return MemoryPublisher(self)

    def subscribe(self, topics: Sequence[str], *, group: str) -> "MemorySubscription":
        with self.changed:
            for name in topics:
                topic = self._topic(name)
                first = topic.entries[0].offset if topic.entries else topic.next_offset
                topic.committed.setdefault(group, first)
        return MemorySubscription(self, tuple(topics), group)

    def append(
        self, message: Message, acknowledge: Callable[[], None], owner: "MemoryPublisher"
    ) -> None:
        with self.changed:
            topic = self._topic(message.topic)
            topic.entries.append(_Entry(topic.next_offset, message, acknowledge, owner))
            topic.next_offset += 1
            self._trim(message.topic)
            self.changed.notify_all()

    def withdraw(self, owner: "MemoryPublisher") -> None:
        """Take back what this publisher has published and nobody has committed."""
        with self.changed:
            for topic in self._topics.values():
                topic.entries = deque(e for e in topic.entries if e.owner is not owner)

    def committed(self, topic: str, group: str) -> int:
        return self._topic(topic).committed[group]

    def commit(self, topic: str, group: str, offset: int) -> None:
        with self.changed:
            committed = self._topic(topic).committed
            committed[group] = max(committed[group], offset)
            self._trim(topic)
            self.changed.notify_all()

    def read(self, topic: str, position: int, limit: int) -> list[Record]:
        """Records from `position` on; the caller holds `changed`."""
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
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._pending: set[int] = set()
        self._reports: list[Report] = []

    def publish(self, message: Message, *, token: int) -> bool:
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
        with self._broker.changed:
            self._broker.changed.wait_for(lambda: bool(self._reports), timeout)
            reports, self._reports = self._reports, []
            return reports

    def commit(self, *, timeout: float) -> None:
        """There are no transactions."""

    def purge(self) -> None:
        with self._broker.changed:
            self._broker.withdraw(self)
            self._reports += [Failed(token, "purged") for token in sorted(self._pending)]
            self._pending.clear()

    def close(self) -> None:
        self.purge()

    def _acknowledge(self, token: int) -> None:
        """Called by the broker, which holds `changed`."""
        self._pending.discard(token)
        self._reports.append(Acknowledged(token))


class MemorySubscription:
    is_joined = True

    def __init__(self, broker: MemoryBroker, topics: tuple[str, ...], group: str) -> None:
        self._broker = broker
        self._group = group
        self._positions = {topic: broker.committed(topic, group) for topic in topics}

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        deadline = time.monotonic() + timeout
        with self._broker.changed:
            while True:
                records = self._read(limit)
                remaining = deadline - time.monotonic()
                if records or remaining <= 0:
                    return records
                self._broker.changed.wait(remaining)

    def commit(self, records: Sequence[Record]) -> None:
        ends: dict[str, int] = {}
        for record in records:
            ends[record.topic] = max(ends.get(record.topic, 0), record.offset + 1)
        for topic, offset in ends.items():
            self._broker.commit(topic, self._group, offset)

    def close(self) -> None:
        """Nothing is held; uncommitted records stay for the group's next subscription."""

    def _read(self, limit: int) -> list[Record]:
        records: list[Record] = []
        for topic, position in self._positions.items():
            found = self._broker.read(topic, position, limit - len(records))
            if found:
                self._positions[topic] = found[-1].offset + 1
                records += found
        return records
