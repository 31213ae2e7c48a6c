"""kafka://: Apache Kafka by way of kafka-python, or of librdkafka for what must be fast.

Questions about the server and its topics are kafka-python's with either client: it is always
installed, and its errors tell wrong credentials and absent topics apart, at once."""

from collections.abc import Sequence

from brokers.base import Publisher, Subscription
from brokers.errors import BrokerConfigurationError
from brokers.kafka.address import KafkaAddress
from brokers.kafka.clients import KAFKA_PYTHON, LIBRDKAFKA
from brokers.kafka.known_topics import KnownTopics
from brokers.kafka.subscription import Join, KafkaSubscription
from brokers.kafka.topic_shapes import TopicShapes, TopicWatch
from brokers.kafka_python import topics as kafka_topics
from brokers.kafka_python.member import KafkaPythonMember
from brokers.kafka_python.publisher import KafkaPythonPublisher


class KafkaBroker:
    """Making one connects to nothing.

    Args:
        address: where Kafka is.
        name: the URL without its password.
        partitions: of a topic that `ensure_topics` creates.
        replication_factor: of a topic that `ensure_topics` creates.
        client: one of `brokers.kafka.clients.CLIENTS`, which must be installed.
    """

    in_process = False

    def __init__(
        self,
        address: KafkaAddress,
        *,
        name: str = "",
        partitions: int = 12,
        replication_factor: int = 1,
        client: str = KAFKA_PYTHON,
    ) -> None:
        self.address = address
        self.name = name or f"kafka://{address}"
        self.partitions = partitions
        self.replication_factor = replication_factor
        self.client = client
        self.has_transactions = client == LIBRDKAFKA
        self._shapes = TopicShapes(partitions)
        self._known_topics = KnownTopics(address, self._shapes)

    def check(self) -> None:
        kafka_topics.check(self.address)

    def ensure_topics(self, topics: Sequence[str]) -> None:
        names = [self.address.named(topic) for topic in topics]
        counts = kafka_topics.create_missing(
            self.address,
            names,
            partitions=self.partitions,
            replication_factor=self.replication_factor,
        )
        made = dict.fromkeys(names, self.partitions)
        self._shapes.note(made | counts)

    def publisher(self, *, transactional_id: str | None = None) -> Publisher:
        if self.client == LIBRDKAFKA:
            from brokers.librdkafka import LibrdkafkaPublisher

            return LibrdkafkaPublisher(
                self.address,
                self._known_topics,
                watch=TopicWatch(self._shapes),
                transactional_id=transactional_id,
            )
        if transactional_id is not None:
            # It has transactions, but waits for the end of each without limit: through an outage.
            raise BrokerConfigurationError(
                "transactions need the Kafka client librdkafka, this is kafka-python: "
                "`uv sync --extra librdkafka`"
            )
        return KafkaPythonPublisher(
            self.address, self._known_topics, watch=TopicWatch(self._shapes)
        )

    def subscribe(self, topics: Sequence[str], *, group: str) -> Subscription:
        join: Join = KafkaPythonMember
        if self.client == LIBRDKAFKA:
            from brokers.librdkafka import LibrdkafkaMember

            join = LibrdkafkaMember
        watch = TopicWatch(self._shapes)
        return KafkaSubscription(self.address, topics, group, join=join, watch=watch)
