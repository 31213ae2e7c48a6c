"""One membership of a consumer group, through librdkafka."""

import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from brokers.errors import BrokerUnavailable
from brokers.kafka.address import KafkaAddress
from brokers.librdkafka.config import explained, make_client

CONNECT_TIMEOUT = 2.0
CLOSE_TIMEOUT = 2.0
SESSION_TIMEOUT_MS = 10_000  # how long a killed member's partitions wait for another
HEARTBEAT_INTERVAL_MS = 3_000
STATISTICS_INTERVAL_MS = 500  # librdkafka says only there who is connected
AWAY_AFTER = 2.0
CONNECTED = ("UP", "UPDATE")


class Member:
    """
    Raises:
        BrokerUnavailable: no broker answers.
        BrokerConfigurationError: librdkafka cannot be used so.
    """

    def __init__(self, address: KafkaAddress, topics: Sequence[str], group: str) -> None:
        self._answered_at = time.monotonic()
        self._trouble: KafkaError | None = None
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
                # Members with kafka-python may be in the same group.
                "partition.assignment.strategy": "range,roundrobin",
                "statistics.interval.ms": STATISTICS_INTERVAL_MS,
                "stats_cb": self._look,
                "error_cb": self._note,
            },
        )
        self._await_answer(address)
        self._consumer.subscribe(list(topics))

    @property
    def is_away(self) -> bool:
        """Nobody has answered for a while."""
        return time.monotonic() - self._answered_at >= AWAY_AFTER

    @property
    def trouble(self) -> str:
        """What librdkafka says about it."""
        return explained(self._trouble) if self._trouble is not None else "no connection"

    def receive(self, *, timeout: float, limit: int) -> list[Message]:
        """Up to `limit` messages; waits for the first only.

        Raises:
            KafkaException: this member cannot go on.
        """
        first = self._consumer.poll(timeout)
        if first is None:
            return []
        found = [first, *(self._consumer.consume(limit - 1, 0) if limit > 1 else ())]
        return [message for message in found if self._is_good(message)]

    def assigned(self) -> set[tuple[str, int]]:
        return {(each.topic, each.partition) for each in self._consumer.assignment()}

    def commit(self, ends: dict[tuple[str, int], int]) -> list[KafkaError]:
        """Returns what kept single partitions from being committed. Where nobody answers, it takes
        as long as a session: librdkafka's waiting has no other limit.

        Raises:
            KafkaException: nothing is committed.
        """
        offsets = [TopicPartition(topic, part, end) for (topic, part), end in ends.items()]
        done = self._consumer.commit(offsets=offsets, asynchronous=False)
        return [each.error for each in done if each.error is not None]

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
            self._consumer.poll(0)  # tells `_note()` why
            self.close()
            reason = self.trouble if self._trouble is not None else explained(error)
            raise BrokerUnavailable(f"no Kafka broker answers at {address}: {reason}") from error
        self._answered_at = time.monotonic()

    def _is_good(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.fatal():
            raise KafkaException(error)
        self._note(error)
        return False

    def _look(self, statistics: str) -> None:
        brokers = json.loads(statistics)["brokers"].values()
        if any(broker["state"] in CONNECTED for broker in brokers):
            self._answered_at = time.monotonic()

    def _note(self, error: KafkaError) -> None:
        self._trouble = error
