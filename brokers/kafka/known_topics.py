"""Asking about a topic before a producer learns of a message for it.

A producer that is handed a topic that does not exist asks for it again and again, or says so only
half a minute later. One that is handed a message above the topic's limit ends with it, and with all
else that it holds.
"""

import time

from brokers.base import Failed, Message, Refused
from brokers.errors import BrokerError, BrokerUnavailable
from brokers.kafka import topics
from brokers.kafka.address import KafkaAddress

REMEMBERED = 5.0  # seconds, of what may be put right: an absent topic, a limit that is too low
CERTAIN_AFTER = 0.25  # seconds between two answers that there is no such topic
ASKED_EVERY = 0.1


class KnownTopics:
    """What is known of the topics of one Kafka, for all of its publishers."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._absent_since: dict[str, float] = {}
        self._hopeless: dict[str, tuple[float, str, bool]] = {}
        self._limits: dict[str, tuple[int | None, float]] = {}

    def partitions(self, topic: str, token: int) -> int | Refused | Failed:
        """How many the topic has, or the fate of a message for it. One broker's first word that
        there is no such topic does not count: it may not have heard of it yet.

        Raises:
            BrokerUnavailable: nobody says.
        """
        now = time.monotonic()
        until, reason, is_absent = self._hopeless.get(topic, (0.0, "", False))
        if now >= until:
            try:
                count = self.partitions_now(topic)
            except topics.NotShown as error:
                reason, is_absent = str(error), False
            else:
                if count:
                    self._absent_since.pop(topic, None)
                    return count
                since = self._absent_since.setdefault(topic, now)
                reason, is_absent = f"Kafka has no topic {topic}", now - since >= CERTAIN_AFTER
            until = time.monotonic() + (REMEMBERED if is_absent else ASKED_EVERY)
            self._hopeless[topic] = until, reason, is_absent
        if is_absent:
            return Refused(token, reason, unsent=True)
        return Failed(token, reason, only_it=True)

    def partitions_now(self, topic: str) -> int:
        """
        Raises:
            BrokerUnavailable: nobody says, or NotShown.
        """
        try:
            return topics.partition_count(self._address, topic)
        except BrokerUnavailable:
            raise
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
