"""kafka://: Apache Kafka, through kafka-python, or through librdkafka where speed counts.

The parts are joined here: `brokers.kafka` has the code shared by both clients, while
`brokers.kafka_python` and `brokers.librdkafka` have a client each. librdkafka is imported only when
used.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from brokers.base import Publisher, Subscription
from brokers.errors import BrokerConfigurationError
from brokers.kafka.address import KafkaAddress
from brokers.kafka.clients import KAFKA_PYTHON, LIBRDKAFKA
from brokers.kafka.known_topics import KnownTopics, TopicQuestions
from brokers.kafka.membership import Join
from brokers.kafka.sizes import MAX_QUEUED_BYTES
from brokers.kafka.subscription import KafkaSubscription
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming
from brokers.kafka.topic_shapes import TopicShapes, TopicWatch
from brokers.kafka_python.member import KafkaPythonMember
from brokers.kafka_python.publisher import KafkaPythonPublisher
from brokers.kafka_python.server import KafkaServer


class KafkaBroker:
    """Publish to and subscribe at a Kafka; to make a broker connects to nothing.

    Args:
        address: where Kafka is.
        name: the URL without its password.
        partitions: of each topic created by `ensure_topics`.
        replication_factor: of each topic created by `ensure_topics`.
        client: a name in `brokers.kafka.clients.CLIENTS`; must be installed.
        timing: durations of all clients.
        max_queued_bytes: above them a publisher raises `QueueFull`.
        questions: answers questions about topics; by default, asks the server.
        clock: monotonic seconds; decides when to ask about topics again.
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
        timing: KafkaTiming = DEFAULT_TIMING,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
        questions: TopicQuestions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self.name = name or f"kafka://{address}"
        self.partitions = partitions
        self.replication_factor = replication_factor
        self.client = client
        self.has_transactions = client == LIBRDKAFKA
        self._timing = timing
        self._max_queued_bytes = max_queued_bytes
        self._clock = clock
        self._server = KafkaServer(address, timing)
        self._shapes = TopicShapes(partitions)
        self._known_topics = KnownTopics(
            questions or self._server, self._shapes, timing, clock=clock
        )

    def check(self) -> None:
        """Ask the server for any answer; see `Broker.check()`."""
        self._server.check()

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the topics that are missing, and log topics with fewer partitions than wanted."""
        names = [self.address.named(topic) for topic in topics]
        counts = self._server.create_missing(
            names, partitions=self.partitions, replication_factor=self.replication_factor
        )
        created = dict.fromkeys(names, self.partitions)
        self._shapes.note(created | counts)

    def publisher(self, *, transactional_id: str | None = None) -> Publisher:
        """Make a publisher by the broker's client; see `Broker.publisher()`."""
        if self.client == LIBRDKAFKA:
            from brokers.librdkafka import LibrdkafkaPublisher

            return LibrdkafkaPublisher(
                self.address,
                self._known_topics,
                watch=self._watch(),
                timing=self._timing,
                max_queued_bytes=self._max_queued_bytes,
                transactional_id=transactional_id,
            )
        if transactional_id is not None:
            # kafka-python has transactions, but waits for the end of each through any outage.
            raise BrokerConfigurationError(
                "transactions need the Kafka client librdkafka, this is kafka-python: "
                "`uv sync --extra librdkafka`"
            )
        return KafkaPythonPublisher(
            self.address,
            self._known_topics,
            watch=self._watch(),
            timing=self._timing,
            max_queued_bytes=self._max_queued_bytes,
        )

    def subscribe(self, topics: Sequence[str], *, group: str) -> Subscription:
        """Subscribe by the broker's client; see `Broker.subscribe()`."""
        return KafkaSubscription(
            self.address, topics, group, join=self._join(), watch=self._watch()
        )

    def _join(self) -> Join:
        if self.client == LIBRDKAFKA:
            from brokers.librdkafka import LibrdkafkaMember

            return partial(LibrdkafkaMember, timing=self._timing)
        return partial(KafkaPythonMember, timing=self._timing)

    def _watch(self) -> TopicWatch:
        return TopicWatch(self._shapes, self._timing, clock=self._clock)
