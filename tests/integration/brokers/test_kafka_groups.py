"""What is particular to Kafka: groups whose partitions move, and clients of two kinds."""

import logging
from contextlib import closing

import pytest
from confluent_kafka import Producer

from brokers import Message, Publisher, Record, Subscription
from brokers.kafka.clients import CLIENTS, KAFKA_PYTHON, LIBRDKAFKA
from brokers.kafka_broker import KafkaBroker
from tests.integration.brokers.kafka_steps import PATIENCE, collect, receive, until

pytestmark = [
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


def until_both_receive(topic: str, source: Publisher, *targets: Subscription) -> None:
    """Publish until each of these members of a group has received something."""
    received = [False for _ in targets]
    sent = iter(range(10_000))

    def both_receive() -> bool:
        number = next(sent)
        source.publish(Message(topic, f"key-{number}", b""), token=number)
        for index, target in enumerate(targets):
            records = target.receive(timeout=0.05, limit=100)
            target.commit(records)
            received[index] |= bool(records)
        return all(received)

    until(both_receive)


class TestAGroup:
    def test_two_subscriptions_share(self, broker: KafkaBroker, topic: str) -> None:
        with (
            closing(broker.subscribe([topic], group=topic)) as one,
            closing(broker.subscribe([topic], group=topic)) as two,
            closing(broker.publisher()) as source,
        ):
            until_both_receive(topic, source, one, two)

    def test_a_commit_after_another_took_over_is_let_be(
        self, broker: KafkaBroker, topic: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with closing(broker.publisher()) as source:
            for token in range(30):
                source.publish(Message(topic, f"key-{token}", b""), token=token)
            collect(source, 30)
        with (
            closing(broker.subscribe([topic], group=topic)) as one,
            closing(broker.subscribe([topic], group=topic)) as two,
        ):
            records = receive(one, 30)
            again: list[Record] = []

            def taken_over() -> bool:
                again.extend(two.receive(timeout=0.1, limit=100))
                one.receive(timeout=0.1, limit=100)
                return bool(again)

            until(taken_over)
            with caplog.at_level(logging.INFO, logger="brokers.kafka"):
                one.commit(records)
            assert "not committed" in caplog.text


class TestBothClients:
    """Processes with either may work beside each other, for instance during a deployment."""

    @pytest.fixture
    def client(self) -> str:
        return KAFKA_PYTHON

    @pytest.fixture
    def other(self, broker: KafkaBroker) -> KafkaBroker:
        return KafkaBroker(broker.address, client=LIBRDKAFKA)

    def test_a_key_keeps_its_partition(
        self, broker: KafkaBroker, other: KafkaBroker, topic: str
    ) -> None:
        keys = ["", "key", "ключ", *(f"ORD-{number}" for number in range(50))]
        for publishing in (broker, other):
            with closing(publishing.publisher()) as source:
                for token, key in enumerate(keys):
                    source.publish(Message(topic, key, b"{}", (("h", b""),)), token=token)
                assert len(collect(source, len(keys))) == len(keys)
        for receiving in (broker, other):
            with closing(receiving.subscribe([topic], group=receiving.client)) as target:
                records = receive(target, 2 * len(keys))
            places = {(record.key, record.partition) for record in records}
            assert len(places) == len(keys)
            assert {record.headers for record in records} == {(("h", b""),)}

    def test_they_share_a_group(self, broker: KafkaBroker, other: KafkaBroker, topic: str) -> None:
        with (
            closing(broker.subscribe([topic], group=topic)) as one,
            closing(other.subscribe([topic], group=topic)) as two,
            closing(broker.publisher()) as source,
        ):
            until_both_receive(topic, source, one, two)

    def test_nobody_receives_an_open_transaction(
        self, broker: KafkaBroker, other: KafkaBroker, topic: str
    ) -> None:
        with (
            closing(other.publisher(transactional_id=topic)) as source,
            closing(broker.subscribe([topic], group=topic)) as target,
        ):
            source.publish(Message(topic, "key", b"given up"), token=1)
            source.reports(timeout=0.5)
            source.purge()
            source.publish(Message(topic, "key", b"committed"), token=2)
            source.reports(timeout=0.5)
            assert target.receive(timeout=1, limit=10) == []
            source.commit(timeout=PATIENCE)
            assert [record.value for record in receive(target, 1)] == [b"committed"]

    @pytest.mark.parametrize("client", CLIENTS)
    @pytest.mark.usefixtures("client")
    def test_without_key_and_value(self, broker: KafkaBroker, topic: str) -> None:
        """Others publish such messages."""
        producer = Producer({"bootstrap.servers": ",".join(broker.address.servers)})
        producer.produce(topic, None, None, headers=[("none", None)])
        producer.flush(PATIENCE)
        with closing(broker.subscribe([topic], group=topic)) as target:
            [record] = receive(target, 1)
        assert (record.key, record.value, record.headers) == (None, None, (("none", b""),))
