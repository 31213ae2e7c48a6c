"""What is particular to Kafka: topics that change while processes run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress

import pytest
from kafka.cluster import ClusterMetadata

from brokers import (
    Acknowledged,
    BrokerUnavailable,
    Message,
    Subscription,
)
from brokers.kafka import topic_shapes
from brokers.kafka.clients import LIBRDKAFKA
from brokers.kafka.timing import KafkaTiming
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python.server import admin_client
from brokers.librdkafka import LibrdkafkaMember
from brokers.librdkafka import connecting as librdkafka_connecting
from tests.integration.brokers.kafka_steps import collect, until

pytestmark = [
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture
def asked_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server under test may make topics on demand, so here no client demands one; and
    librdkafka believes that a topic is gone sooner than after half a minute."""
    options = {**vars(ClusterMetadata)["DEFAULT_CONFIG"], "allow_auto_create_topics": False}
    monkeypatch.setattr(ClusterMetadata, "DEFAULT_CONFIG", options)
    usual = librdkafka_connecting.connection_config
    changed = {"allow.auto.create.topics": False, "topic.metadata.propagation.max.ms": 1_000}
    monkeypatch.setattr(
        librdkafka_connecting, "connection_config", lambda *args: usual(*args) | changed
    )


LOOKING_OFTEN = KafkaTiming(look_every=0.6, refresh=0.2)
"""A look takes longer than two statistics."""


class Changing:
    """What whoever runs says of a topic that changes under it; classes bring the fixture `said`."""

    def test_made_again_with_one_partition(
        self, broker: KafkaBroker, topic: str, said: Callable[[], list[str]]
    ) -> None:
        with admin_client(broker.address, timeout=100) as admin:
            admin.delete_topics([topic])
            until(lambda: topic not in admin.list_topics())
            admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}})
        until(lambda: any("partition(s), and" in line for line in said()))
        line = said()[-1]
        assert f"the topic {topic} has 1 partition(s), and KAFKA_PARTITIONS is 3" in line
        assert said().count(line) == 1

    def test_deleted(self, broker: KafkaBroker, topic: str, said: Callable[[], list[str]]) -> None:
        with admin_client(broker.address, timeout=100) as admin:
            admin.delete_topics([topic])
        until(lambda: bool(said()))
        line = said()[0]
        assert f"Kafka no longer shows the topic {topic}" in line


@pytest.mark.usefixtures("asked_for_none")
class TestATopicThatChangesUnderAConsumer(Changing):
    @pytest.fixture
    def timing(self) -> KafkaTiming:
        return LOOKING_OFTEN

    @pytest.fixture
    def subscription(self, broker: KafkaBroker, topic: str) -> Iterator[Subscription]:
        with closing(broker.subscribe([topic], group=topic)) as made:
            until(lambda: not made.receive(timeout=0.1, limit=10) and made.is_joined)
            yield made

    @pytest.fixture
    def said(
        self, subscription: Subscription, caplog: pytest.LogCaptureFixture
    ) -> Callable[[], list[str]]:
        def looked() -> list[str]:
            with suppress(BrokerUnavailable):  # what goes on is told elsewhere
                subscription.receive(timeout=0.1, limit=10)
            return [
                each.getMessage() for each in caplog.records if each.name == topic_shapes.__name__
            ]

        return looked

    def test_deleted_before_it_joined_again(
        self, broker: KafkaBroker, topic: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A new member has never had partitions of it."""
        with admin_client(broker.address, timeout=100) as admin:
            admin.delete_topics([topic])
            until(lambda: topic not in admin.list_topics())
        with closing(broker.subscribe([topic], group=topic)) as made:

            def is_said() -> bool:
                with suppress(BrokerUnavailable):
                    made.receive(timeout=0.1, limit=10)
                return f"Kafka no longer shows the topic {topic}" in caplog.text

            until(is_said)

    @pytest.mark.parametrize("client", [LIBRDKAFKA])
    def test_deleted_while_it_is_given_its_partitions(
        self,
        broker: KafkaBroker,
        topic: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Its client then asks for the first offset of each without end, and for nothing else."""

        def deleted(joined: LibrdkafkaMember, *_: object) -> None:
            joined.is_joined = True
            with admin_client(broker.address, timeout=100) as admin:
                admin.delete_topics([topic])
                until(lambda: topic not in admin.list_topics())

        monkeypatch.setattr(LibrdkafkaMember, "_note_assignment", deleted)
        with closing(broker.subscribe([topic], group=topic)) as made:

            def is_said() -> bool:
                with suppress(BrokerUnavailable):
                    made.receive(timeout=0.1, limit=10)
                return f"Kafka no longer shows the topic {topic}" in caplog.text

            until(is_said)

    def test_whoever_has_no_partition_of_it_says_nothing(
        self, broker: KafkaBroker, topic: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Four members share three partitions."""
        with ExitStack() as open_ones:
            members = [
                open_ones.enter_context(closing(broker.subscribe([topic], group=topic)))
                for _ in range(4)
            ]
            looks = iter(range(10_000))

            def have_looked() -> bool:
                for each in members:
                    each.receive(timeout=0.1, limit=10)
                return all(each.is_joined for each in members) and next(looks) >= 10

            until(have_looked)
        assert [each for each in caplog.records if each.name == topic_shapes.__name__] == []


@pytest.mark.usefixtures("asked_for_none")
class TestATopicThatChangesUnderAPublisher(Changing):
    """Also one that has nothing to publish at the moment."""

    @pytest.fixture
    def timing(self) -> KafkaTiming:
        return LOOKING_OFTEN

    @pytest.fixture
    def said(
        self, broker: KafkaBroker, topic: str, caplog: pytest.LogCaptureFixture
    ) -> Iterator[Callable[[], list[str]]]:
        with closing(broker.publisher()) as source:
            source.publish(Message(topic, "key", b""), token=1)
            assert collect(source, 1) == [Acknowledged(1)]

            def looked() -> list[str]:
                source.reports(timeout=0.1)
                records = caplog.records
                return [each.getMessage() for each in records if each.name == topic_shapes.__name__]

            assert looked() == []
            yield looked

    def test_given_more_partitions(
        self, topic: str, broker: KafkaBroker, said: Callable[[], list[str]]
    ) -> None:
        with admin_client(broker.address, timeout=100) as admin:
            admin.create_partitions({topic: 6})
        until(lambda: bool(said()))
        line = said()[0]
        assert f"the topic {topic} has 6 partitions, and had 3: keys move" in line


@pytest.mark.usefixtures("asked_for_none")
def test_a_new_producer_notices_a_topic_with_fewer_partitions(
    broker: KafkaBroker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The one before it may have ended with the topic that was deleted."""
    with admin_client(broker.address, timeout=100) as admin:
        admin.delete_topics([topic])
        until(lambda: topic not in admin.list_topics())
        admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}})
        admin.wait_for_topics([topic])
    for _ in range(2):
        with closing(broker.publisher()) as source:
            source.publish(Message(topic, "key", b""), token=1)
            collect(source, 1)
    [line] = [each.getMessage() for each in caplog.records if each.name == topic_shapes.__name__]
    assert f"the topic {topic} has 1 partition(s), and KAFKA_PARTITIONS is 3" in line


def test_a_topic_of_somebody_elses_has_the_partitions_that_it_has(
    broker: KafkaBroker, topic_name: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    small = topic_name("small.events")
    with admin_client(broker.address, timeout=100) as admin:
        admin.create_topics({small: {"num_partitions": 1, "replication_factor": 1}})
        admin.wait_for_topics([small])
    with closing(broker.publisher()) as source:
        source.publish(Message(small, "key", b""), token=1)
        assert collect(source, 1) == [Acknowledged(1)]
    assert [each for each in caplog.records if each.name == topic_shapes.__name__] == []
