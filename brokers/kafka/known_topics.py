"""Ask about a topic before a producer learns of a message for it.

A producer with a message for an absent topic asks for the topic again and again, or reports the
failure only half a minute later. A producer with a message above the topic's limit ends with the
refusal, and fails all further messages in its queue.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from brokers.base import Failed, Message, Refused
from brokers.errors import BrokerConfigurationError, BrokerUnavailable, BrokerUnusable
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming
from brokers.kafka.topic_shapes import TopicShapes

Answer = TypeVar("Answer")


class TopicNotShown(BrokerUnavailable):
    """Raised when a server answers, but does not show us a topic."""


class TopicQuestions(Protocol):
    """Ask a server about a topic, by the topic's name on the servers.

    Each question raises `BrokerConfigurationError` where the server refuses us.
    """

    def partition_count(self, topic: str) -> int:
        """Count the topic's partitions.

        Returns:
            The number; 0 where the server knows no such topic and creates none. A single answer of
            0 may be wrong: a server may not know yet of a topic created through another server.

        Raises:
            BrokerUnavailable: there is no answer.
            TopicNotShown: the server will not say.
        """

    def size_limit(self, topic: str) -> int | None:
        """Find the bytes that a batch for the topic may have.

        Returns:
            The number; None where we may not ask.

        Raises:
            BrokerUnavailable: there is no answer.
        """


class _Unsendable(NamedTuple):
    """Why no message can be sent to a topic, and how long the answer counts."""

    until: float
    reason: str
    is_absent: bool


class KnownTopics:
    """Remember the topics of one Kafka, for all of its publishers.

    Args:
        questions: asks the server.
        shapes: notes the number of partitions.
        timing: how long an answer is remembered.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        questions: TopicQuestions,
        shapes: TopicShapes,
        timing: KafkaTiming = DEFAULT_TIMING,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._questions = questions
        self._shapes = shapes
        self._timing = timing
        self._clock = clock
        self._absent_since: dict[str, float] = {}
        self._unsendable: dict[str, _Unsendable] = {}
        self._limits: dict[str, tuple[int | None, float]] = {}

    def partitions_or_report(self, topic: str, token: int) -> int | Refused | Failed:
        """Count a topic's partitions, or report the message as not sendable.

        A message is `Failed`, to be published again, until two answers call the topic absent: a
        server may not have heard of a new topic yet.

        Args:
            topic: the topic's name on the servers.
            token: the token of the message about to be sent.

        Raises:
            BrokerUnavailable: there is no answer.
        """
        if topic not in self._unsendable or self._clock() >= self._unsendable[topic].until:
            count = self._count_or_note(topic)
            if count:
                return count
        known = self._unsendable[topic]
        if known.is_absent:
            return Refused(token, known.reason, unsent=True)
        return Failed(token, known.reason, only_it=True)

    def _count_or_note(self, topic: str) -> int:
        """Count the partitions; where there are none, return 0 and note why."""
        asked_at = self._clock()
        try:
            count = self.ask_partition_count(topic)
        except TopicNotShown as error:
            reason, is_absent = str(error), False
        else:
            if count:
                self._shapes.meet(topic, count)
                self._absent_since.pop(topic, None)
                return count
            since = self._absent_since.setdefault(topic, asked_at)
            reason = f"Kafka has no topic {topic}"
            is_absent = asked_at - since >= self._timing.absent_after
            if is_absent:
                self._shapes.meet(topic, 0)
        known_for = self._timing.remember if is_absent else self._timing.ask_again
        self._unsendable[topic] = _Unsendable(self._clock() + known_for, reason, is_absent)
        return 0

    def ask_partition_count(self, topic: str) -> int:
        """Ask a server how many partitions a topic has; 0 where there is no such topic.

        Raises:
            BrokerUnavailable: there is no answer, or `TopicNotShown`.
        """
        return self._ask(self._questions.partition_count, topic)

    def report_if_too_large(self, topic: str, message: Message, token: int) -> Refused | None:
        """Report a message over the topic's size limit; ask for the limit when needed.

        Args:
            topic: the topic's name on the servers.
            message: the message about to be sent.
            token: the message's token.

        Returns:
            The report; None where the message may be sent.

        Raises:
            BrokerUnavailable: there is no answer.
        """
        size = len(message.key.encode()) + len(message.value)
        size += sum(len(name) + len(value) for name, value in message.headers)
        limit, asked_at = self._limits.get(topic, (0, float("-inf")))
        is_old = self._clock() - asked_at >= self._timing.remember
        if limit is not None and size > limit and is_old:
            limit = self._ask(self._questions.size_limit, topic)
            self._limits[topic] = limit, self._clock()
        if limit is None or size <= limit:
            return None
        reason = f"its {size} bytes are over the max.message.bytes of topic {topic}, {limit}"
        return Refused(token, reason, unsent=True)

    def _ask(self, question: Callable[[str], Answer], topic: str) -> Answer:
        try:
            return question(topic)
        except BrokerConfigurationError as error:
            raise BrokerUnusable(str(error)) from error
