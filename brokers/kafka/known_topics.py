"""Asking about a topic before a producer learns of a message for it.

A producer that is handed a topic that does not exist asks for it again and again, or says so only
half a minute later. One that is handed a message above the topic's limit ends with it, and with all
else that it holds.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from brokers.base import Failed, Message, Refused
from brokers.errors import BrokerConfigurationError, BrokerUnusable
from brokers.kafka.address import KafkaAddress
from brokers.kafka.topic_shapes import TopicShapes
from brokers.kafka_python import topics

REMEMBERED = 5.0  # seconds, of what may be put right: an absent topic, a limit that is too low
CERTAIN_AFTER = 0.25  # seconds between two answers that there is no such topic
ASKED_EVERY = 0.1


Answer = TypeVar("Answer")


class _Hopeless(NamedTuple):
    """Why there is no sending to a topic, and until when that is taken for known."""

    until: float
    reason: str
    is_absent: bool


class KnownTopics:
    """What is known of the topics of one Kafka, for all of its publishers."""

    def __init__(self, address: KafkaAddress, shapes: TopicShapes) -> None:
        self._address = address
        self._shapes = shapes
        self._absent_since: dict[str, float] = {}
        self._hopeless: dict[str, _Hopeless] = {}
        self._limits: dict[str, tuple[int | None, float]] = {}

    def partitions(self, topic: str, token: int) -> int | Refused | Failed:
        """How many the topic has, or the fate of a message for it. One broker's first word that
        there is no such topic does not count: it may not have heard of it yet.

        Raises:
            BrokerUnavailable: nobody says.
        """
        if topic not in self._hopeless or time.monotonic() >= self._hopeless[topic].until:
            count = self._count_or_note(topic)
            if count:
                return count
        known = self._hopeless[topic]
        if known.is_absent:
            return Refused(token, known.reason, unsent=True)
        return Failed(token, known.reason, only_it=True)

    def _count_or_note(self, topic: str) -> int:
        """0 where there is now a note of why."""
        asked_at = time.monotonic()
        try:
            count = self.partitions_now(topic)
        except topics.NotShown as error:
            reason, is_absent = str(error), False
        else:
            if count:
                self._shapes.meet(topic, count)
                self._absent_since.pop(topic, None)
                return count
            since = self._absent_since.setdefault(topic, asked_at)
            reason, is_absent = f"Kafka has no topic {topic}", asked_at - since >= CERTAIN_AFTER
            if is_absent:
                self._shapes.meet(topic, 0)
        until = time.monotonic() + (REMEMBERED if is_absent else ASKED_EVERY)
        self._hopeless[topic] = _Hopeless(until, reason, is_absent)
        return 0

    def partitions_now(self, topic: str) -> int:
        """
        Raises:
            BrokerUnavailable: nobody says, or NotShown.
        """
        return self._asked(topics.partition_count, topic)

    def over_limit(self, topic: str, message: Message, token: int) -> Refused | None:
        """The fate of a message that the broker will never take for its size.

        Args:
            topic: its name on the server.

        Raises:
            BrokerUnavailable: nobody says.
        """
        size = len(message.key.encode()) + len(message.value)
        size += sum(len(name) + len(value) for name, value in message.headers)
        limit, asked_at = self._limits.get(topic, (0, float("-inf")))
        if limit is not None and size > limit and time.monotonic() - asked_at >= REMEMBERED:
            limit = self._asked(topics.size_limit, topic)
            self._limits[topic] = limit, time.monotonic()
        if limit is None or size <= limit:
            return None
        reason = f"its {size} bytes are over the max.message.bytes of topic {topic}, {limit}"
        return Refused(token, reason, unsent=True)

    def _asked(self, question: Callable[[KafkaAddress, str], Answer], topic: str) -> Answer:
        try:
            return question(self._address, topic)
        except BrokerConfigurationError as error:
            raise BrokerUnusable(str(error)) from error
