"""Asking about a topic before a producer learns of a message for it.

A producer that is handed a topic that does not exist asks for it again and again, or says so only
half a minute later. One that is handed a message above the topic's limit ends with it, and with all
else that it holds.
"""

import time

from brokers.base import Message
from brokers.errors import BrokerError, BrokerUnavailable
from brokers.kafka import topics
from brokers.kafka.address import KafkaAddress

REMEMBERED = 5.0  # seconds, of what may be put right: an absent topic, a limit that is too low


class KnownTopics:
    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._absent_until: dict[str, float] = {}
        self._limits: dict[str, tuple[int | None, float]] = {}

    def partitions(self, topic: str) -> int:
        """How many the topic has; 0 where there is none, or was none a moment ago.

        Raises:
            BrokerUnavailable: nobody says.
        """
        if time.monotonic() < self._absent_until.get(topic, 0):
            return 0
        count = self.partitions_now(topic)
        if not count:
            self._absent_until[topic] = time.monotonic() + REMEMBERED
        return count

    def partitions_now(self, topic: str) -> int:
        """
        Raises:
            BrokerUnavailable: nobody says.
        """
        try:
            return topics.partition_count(self._address, topic)
        except BrokerError as error:
            raise BrokerUnavailable(str(error)) from error

    def over_limit(self, topic: str, message: Message) -> str:
        """Why the broker will never take the message, as far as its size goes; empty where it may.

        Args:
            topic: its name on the server.

        Raises:
            BrokerUnavailable: nobody says.
        """
        size = len(message.key.encode()) + len(message.value)
        size += sum(len(name) + len(value) for name, value in message.headers)
        limit, asked_at = self._limits.get(topic, (0, float("-inf")))
        if limit is not None and size > limit and time.monotonic() - asked_at >= REMEMBERED:
            limit = self._limit_now(topic)
        if limit is None or size <= limit:
            return ""
        return f"its {size} bytes are over the max.message.bytes of topic {topic}, {limit}"

    def _limit_now(self, topic: str) -> int | None:
        try:
            limit = topics.size_limit(self._address, topic)
        except BrokerError as error:
            raise BrokerUnavailable(str(error)) from error
        self._limits[topic] = limit, time.monotonic()
        return limit
