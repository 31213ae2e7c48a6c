"""kafka://: Apache Kafka by way of kafka-python."""

from collections.abc import Sequence

from brokers.kafka import topics as kafka_topics
from brokers.kafka.address import KafkaAddress
from brokers.kafka.publisher import KafkaPublisher
from brokers.kafka.subscription import KafkaSubscription

__all__ = ["KafkaAddress", "KafkaBroker", "KafkaPublisher", "KafkaSubscription"]


class KafkaBroker:
    """Making one connects to nothing.

    Args:
        address: where Kafka is.
        name: the URL without its password.
        partitions: of a topic that `ensure_topics` creates.
        replication_factor: of a topic that `ensure_topics` creates.
    """

    in_process = False

    def __init__(
        self,
        address: KafkaAddress,
        *,
        name: str = "",
        partitions: int = 12,
        replication_factor: int = 1,
    ) -> None:
        self.address = address
        self.name = name or f"kafka://{address}"
        self.partitions = partitions
        self.replication_factor = replication_factor

    def check(self) -> None:
        kafka_topics.check(self.address)

    def ensure_topics(self, topics: Sequence[str]) -> None:
        kafka_topics.create_missing(
            self.address,
            [self.address.named(topic) for topic in topics],
            partitions=self.partitions,
            replication_factor=self.replication_factor,
        )

    def publisher(self) -> KafkaPublisher:
        return KafkaPublisher(self.address)

    def subscribe(self, topics: Sequence[str], *, group: str) -> KafkaSubscription:
        return KafkaSubscription(self.address, topics, group)
