"""Servers that give other answers than the server under test."""

from collections.abc import Callable

from brokers.kafka.address import KafkaAddress
from brokers.kafka.timing import KafkaTiming
from brokers.kafka_python.server import KafkaServer


class WithoutSizeLimits(KafkaServer):
    """As where we may publish to a topic, but not ask for its settings."""

    def size_limit(self, *_: str) -> None:
        return None


class NoneOnDemand(KafkaServer):
    """As a server that makes no topic on demand, which the server under test may do."""

    def _created_on_demand(self, *_: str) -> int:
        return 0


class Saying(KafkaServer):
    """Says of some topics something else."""

    def __init__(self, address: KafkaAddress, answers: Callable[[str], int | None]) -> None:
        super().__init__(address)
        self._answers = answers

    def partition_count(self, topic: str) -> int:
        answer = self._answers(topic)
        return super().partition_count(topic) if answer is None else answer


FIRST_WORD_COUNTS = KafkaTiming(absent_after=0)
"""That there is no such topic is believed at once."""
