"""One membership of a consumer group, through librdkafka."""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from operator import methodcaller
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from brokers.base import Headers, Record
from brokers.errors import BrokerSlow, BrokerUnavailable, BrokerUnusable
from brokers.kafka.address import KafkaAddress
from brokers.kafka.broken_partitions import BrokenPartitions, Place
from brokers.kafka.faults import Fault
from brokers.kafka.subscription import NOT_UTF8, MemberLost
from brokers.kafka.topic_shapes import HEARD_EVERY_MS
from brokers.librdkafka.connecting import make_client
from brokers.librdkafka.faults import error_of, explained, fault
from brokers.librdkafka.statistics import is_connected, partition_counts

CONNECT_TIMEOUT = 2.0
CLOSE_TIMEOUT = 2.0
SESSION_TIMEOUT_MS = 10_000  # how long a killed member's partitions wait for another
HEARTBEAT_INTERVAL_MS = 3_000
STATISTICS_INTERVAL_MS = 500  # librdkafka says only there who is connected
AWAY_AFTER = 2.0
ASK_TIMEOUT = 2.0

_TAKEN_AWAY = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._ASSIGNMENT_LOST,  # noqa: SLF001 - librdkafka's own errors are named so
    }
)


# What librdkafka says of a batch that it cannot read, or whose checksum is wrong.
_UNREADABLE = frozenset(
    {
        KafkaError._BAD_COMPRESSION,  # noqa: SLF001
        KafkaError._BAD_MSG,  # noqa: SLF001
        KafkaError._NOT_IMPLEMENTED,  # noqa: SLF001
        KafkaError._UNDERFLOW,  # noqa: SLF001
        KafkaError.INVALID_MSG,
    }
)


# confluent-kafka returns its headers with an error set where it could not make one of them. Python
# notices that, and raises SystemError, only where the call goes by its general way: one that stands
# in the code is made faster once it is hot, and hands out a list with holes.
_read_headers = methodcaller("headers")


class LibrdkafkaMember:
    """
    Raises:
        BrokerUnavailable: no broker answers.
        BrokerConfigurationError: librdkafka cannot be used so.
    """

    def __init__(self, address: KafkaAddress, topics: Sequence[str], group: str) -> None:
        self._address = address
        self._topics = tuple(topics)
        self._answered_at = time.monotonic()
        self._is_answered = False
        self._trouble: KafkaError | None = None
        self._broken = BrokenPartitions()
        self._counts: Mapping[str, int] = {}
        self.is_joined = False
        self._consumer = make_client(
            Consumer,
            address,
            {
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "session.timeout.ms": SESSION_TIMEOUT_MS,
                "heartbeat.interval.ms": HEARTBEAT_INTERVAL_MS,
                "fetch.wait.max.ms": 100,
                "check.crcs": True,
                # Members with kafka-python may be in the same group.
                "partition.assignment.strategy": "range,roundrobin",
                # While it asks a topic that is gone for its first offset, it does not ask whether
                # there is one.
                "topic.metadata.refresh.interval.ms": HEARD_EVERY_MS,
                "statistics.interval.ms": STATISTICS_INTERVAL_MS,
                "stats_cb": self._look,
                "error_cb": self._note,
            },
        )
        self._await_answer(address)
        self._consumer.subscribe(list(topics), on_assign=self._note_assignment)

    is_stuck = False

    @property
    def is_away(self) -> bool:
        return time.monotonic() - self._answered_at >= AWAY_AFTER

    @property
    def is_turned_away(self) -> bool:
        return self._trouble is not None and fault(self._trouble) is Fault.OURS

    @property
    def trouble(self) -> str:
        return explained(self._trouble) if self._trouble is not None else "no connection"

    def receive(self, *, timeout: float, limit: int) -> list[Record]:
        try:
            self._resume_due()
            first = self._consumer.poll(timeout)
            if first is None:
                return []
            found = [first, *(self._consumer.consume(limit - 1, 0) if limit > 1 else ())]
            return self._readable(found)
        except (KafkaException, RuntimeError) as error:
            lasting = (
                isinstance(error, KafkaException) and fault(error_of(error)) is not Fault.BROKER
            )
            told = f"Kafka at {self._address}: {explained(error)}"
            raise MemberLost(told, lasting=lasting) from error
        except Exception as error:  # a fault of the client's: the next member may meet it too
            told = f"Kafka at {self._address}: {explained(error)}"
            raise MemberLost(told, lasting=True) from error

    def assigned(self) -> set[Place]:
        return {(each.topic, each.partition) for each in self._consumer.assignment()}

    def partition_counts(self) -> Mapping[str, int]:
        """Its statistics know the topics of which it has partitions. One that they do not name may
        be gone, with all that the group had of it, or shared out among other members."""
        known = {topic: self._counts.get(topic, 0) for topic in self._topics}
        return known if all(known.values()) else known | self._asked()

    def _asked(self) -> dict[str, int]:
        """Asked for all of them, since Kafka may make one that is asked for by name."""
        shown = self._consumer.list_topics(timeout=ASK_TIMEOUT).topics
        return {name: len(shown[name].partitions) if name in shown else 0 for name in self._topics}

    def commit(self, ends: Mapping[Place, int]) -> list[str]:
        """Where nobody answers, it takes as long as a session: librdkafka's waiting has no other
        limit."""
        offsets = [TopicPartition(topic, part, end) for (topic, part), end in ends.items()]
        try:
            done = self._consumer.commit(offsets=offsets, asynchronous=False)
            errors = [each.error for each in done if each.error is not None]
        except KafkaException as error:
            errors = [error_of(error)]
        for each in errors:
            if each.code() not in _TAKEN_AWAY:
                kind = BrokerUnavailable if fault(each) is Fault.BROKER else BrokerUnusable
                raise kind(f"Kafka at {self._address}: {explained(each)}")
        return [explained(each) for each in errors]

    def close(self) -> None:
        """Leave the group. With a commit that nobody answers, librdkafka takes ten seconds; it may
        take them by itself."""
        closing = threading.Thread(target=self._close, name="kafka-leaving", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT)

    def _close(self) -> None:
        with suppress(KafkaException, RuntimeError):
            self._consumer.close()

    def _await_answer(self, address: KafkaAddress) -> None:
        try:
            self._consumer.list_topics(timeout=CONNECT_TIMEOUT)
        except KafkaException as error:
            self._consumer.poll(0)  # tells `_note()` why, and `_look()` who is there
            self.close()
            reason = self.trouble if self._trouble is not None else explained(error)
            if self.is_turned_away:
                raise BrokerUnusable(f"Kafka at {address}: {reason}") from error
            if self._is_answered:
                told = f"a Kafka broker answers at {address}, but not in time: {reason}"
                raise BrokerSlow(told) from error
            raise BrokerUnavailable(f"no Kafka broker answers at {address}: {reason}") from error
        self._answered_at = time.monotonic()

    def _readable(self, found: Sequence[Message]) -> list[Record]:
        """What is behind a batch that cannot be read is left for later, so that no commit steps
        over that batch."""
        broken: set[Place] = set()
        records = []
        for message in found:
            place = message.topic() or "", message.partition() or 0
            error = message.error()
            if error is not None and error.code() in _UNREADABLE:
                if place not in broken:
                    self._stand_still(place, message.offset() or 0, explained(error))
                    broken.add(place)
            elif error is not None:
                self._heed(error)
            elif place not in broken:
                records.append(_record(message))
        return records

    def _heed(self, error: KafkaError) -> None:
        if error.fatal() or fault(error) in (Fault.OURS, Fault.TOPIC):
            raise KafkaException(error)
        self._note(error)

    def _stand_still(self, place: Place, offset: int, reason: str) -> None:
        """Read nothing of that partition for a while, and then from that offset on, whatever the
        client has fetched beyond it."""
        self._broken.add(place, offset, reason)
        if place in self.assigned():
            self._consumer.pause([TopicPartition(*place)])
            self._consumer.seek(TopicPartition(*place, offset))

    def _resume_due(self) -> None:
        mine = self.assigned() if (due := self._broken.due()) else set()
        self._consumer.resume([TopicPartition(*place) for place in due if place in mine])

    def _look(self, statistics: str) -> None:
        found = json.loads(statistics)
        self._counts = partition_counts(found)
        if is_connected(found):
            self._is_answered = True
            self._answered_at = time.monotonic()

    def _note_assignment(self, _consumer: Consumer, _places: list[TopicPartition]) -> None:
        self.is_joined = True

    def _note(self, error: KafkaError) -> None:
        self._trouble = error


def _record(message: Message) -> Record:
    headers, unreadable = _headers(message)
    return Record(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=message.key(),
        value=message.value(),
        headers=headers,
        unreadable=unreadable,
    )


def _headers(message: Message) -> tuple[Headers, str]:
    """The headers, and what keeps them from being read: confluent-kafka hands out none of them
    where the name of one is not UTF-8, and says so by a SystemError."""
    try:
        headers = cast("list[tuple[str, bytes | None]]", _read_headers(message) or [])
    except SystemError:
        return (), f"{NOT_UTF8}; this client keeps none of its headers"
    except Exception as error:  # noqa: BLE001 - whatever it is, the record must be stepped over
        return (), f"its headers cannot be read: {explained(error)}"
    return tuple((name, value or b"") for name, value in headers), ""
