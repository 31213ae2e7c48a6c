"""What is particular to Kafka: messages and topics that it refuses."""

import time
from collections.abc import Callable
from contextlib import closing

import pytest

from brokers import (
    Acknowledged,
    Failed,
    Message,
    Refused,
    broker_from_url,
)
from brokers.kafka.known_topics import TopicNotShown
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python.publisher import KafkaPythonPublisher
from brokers.kafka_python.server import admin_client, creates_topics
from brokers.librdkafka import LibrdkafkaPublisher
from tests.integration.brokers.kafka_servers import (
    FIRST_WORD_COUNTS,
    NoneOnDemand,
    Saying,
    WithoutSizeLimits,
)
from tests.integration.brokers.kafka_steps import collect, like, set_limit, set_option, until

pytestmark = [
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


def has_ended(source: KafkaPythonPublisher | LibrdkafkaPublisher) -> bool:
    """Whether its producer has had an error. librdkafka's thread says so to whoever asks next."""
    if isinstance(source, LibrdkafkaPublisher) and source._producer is not None:
        source._producer.poll(0)
    return source._producer is not None and source._producer.finished


@pytest.fixture
def broker_without_limits(broker: KafkaBroker) -> KafkaBroker:
    return like(broker, questions=WithoutSizeLimits(broker.address))


class TestRefusals:
    def test_a_refusal_judges_no_other_message(
        self, broker_without_limits: KafkaBroker, topic: str
    ) -> None:
        with closing(broker_without_limits.publisher()) as source:
            for token in range(40):
                value = b"x" * 1_100_000 if token == 20 else b"small"
                source.publish(Message(topic, f"key-{token % 5}", value), token=token)
            reports = {report.token: report for report in collect(source, 40)}
        refused = [token for token, report in reports.items() if isinstance(report, Refused)]
        assert refused == [20]
        assert sorted(reports) == list(range(40))

    def test_what_is_over_the_topics_limit_is_not_sent(
        self, broker: KafkaBroker, topic: str
    ) -> None:
        """So the producer goes on, with all that it holds."""
        with closing(broker.publisher()) as source:
            for token in range(40):
                value = b"x" * 1_100_000 if token == 20 else b"small"
                source.publish(Message(topic, f"key-{token % 5}", value), token=token)
            reports = {report.token: report for report in collect(source, 40)}
        refused = reports.pop(20)
        assert isinstance(refused, Refused)
        assert refused.unsent
        assert "max.message.bytes of topic" in refused.reason
        assert {type(report) for report in reports.values()} == {Acknowledged}

    def test_a_limit_that_was_raised_or_lowered(self, broker: KafkaBroker, topic: str) -> None:
        message = Message(topic, "key", b"x" * 1_100_000)
        ahead = 0.0
        waiting = like(broker, clock=lambda: time.monotonic() + ahead)
        with closing(waiting.publisher()) as source:
            source.publish(message, token=1)
            assert [type(report) for report in collect(source, 1)] == [Refused]
            set_limit(broker, topic, 2_000_000)
            source.publish(message, token=2)
            [report] = collect(source, 1)
            assert isinstance(report, Refused), "what is known is good for a while"
            ahead = DEFAULT_TIMING.remember
            source.publish(message, token=3)
            assert collect(source, 1) == [Acknowledged(3)]
            set_limit(broker, topic, 1_000_000)
            # It is sent, and the broker says so, as soon as the new limit has reached its log.
            reports: list[object] = []

            def is_refused() -> bool:
                source.publish(message, token=4 + len(reports))
                reports.extend(collect(source, 1))
                return isinstance(reports[-1], Refused)

            until(is_refused)
            assert isinstance(reports[-1], Refused)
            assert not reports[-1].unsent

    def test_a_clock_that_the_topic_does_not_allow(self, broker: KafkaBroker, topic: str) -> None:
        """Here it is behind; the broker says the same of one that is ahead. No message is at fault,
        and once the clocks agree all of them arrive."""
        set_option(broker, topic, "message.timestamp.before.max.ms", "0")
        with closing(broker.publisher()) as source:
            for token in range(20):
                source.publish(Message(topic, "key", b"x"), token=token)
            assert {type(report) for report in collect(source, 20)} == {Failed}, "in company"
            for token in range(3):
                source.publish(Message(topic, "key", b"x"), token=token)
                [report] = collect(source, 1)
                assert isinstance(report, Failed), "alone"
                assert report.lasting
                assert not report.only_it
                assert report.reason.endswith("set the clock")
            set_option(broker, topic, "message.timestamp.before.max.ms", str(2**62))
            for token in range(20):
                source.publish(Message(topic, "key", b"x"), token=token)
            assert {*collect(source, 20)} == {Acknowledged(token) for token in range(20)}

    def test_nothing_goes_out_before_the_refusal_has_been_heard(
        self, broker_without_limits: KafkaBroker, topic: str
    ) -> None:
        with closing(broker_without_limits.publisher()) as source:
            assert isinstance(source, KafkaPythonPublisher | LibrdkafkaPublisher)
            source.publish(Message(topic, "key", b"x" * 1_100_000), token=0)
            until(lambda: has_ended(source))
            for token in range(1, 10):
                source.publish(Message(topic, "key", b"later"), token=token)
            unheard = collect(source, 10)
            assert not [each for each in unheard if isinstance(each, Acknowledged)]

            source.publish(Message(topic, "key", b"after"), token=10)
            assert collect(source, 1) == [Acknowledged(10)]

    def test_what_would_be_too_large_together_is_sent_apart(
        self, broker: KafkaBroker, topic_name: Callable[[str], str]
    ) -> None:
        small = topic_name("small.events")
        with admin_client(broker.address, timeout=100) as admin:
            configs = {"max.message.bytes": "2000"}
            shape = {"num_partitions": 1, "replication_factor": 1, "configs": configs}
            admin.create_topics({small: shape})
            admin.wait_for_topics([small])
        with closing(broker.publisher()) as source:
            waiting = set(range(30))
            while waiting:
                for token in sorted(waiting):
                    source.publish(Message(small, "key", b"x" * 300), token=token)
                for report in collect(source, len(waiting)):
                    assert not isinstance(report, Refused), "a refused batch judges no message"
                    if isinstance(report, Acknowledged):
                        waiting.remove(report.token)

    @pytest.mark.parametrize("name", ["no/such topic", "x" * 300, ""])
    def test_an_impossible_topic(self, broker: KafkaBroker, name: str) -> None:
        with closing(like(broker, timing=FIRST_WORD_COUNTS).publisher()) as source:
            source.publish(Message(name, "key", b""), token=1)
            [report] = collect(source, 1)
        assert isinstance(report, Refused)

    def test_a_topic_with_fewer_partitions_is_named(
        self,
        broker: KafkaBroker,
        kafka_server_url: str,
        topic_name: Callable[[str], str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        again, whole = topic_name("orders.commands"), topic_name("orders.events")
        broker_from_url(kafka_server_url, partitions=1).ensure_topics([again])
        broker.ensure_topics([whole])
        assert caplog.messages == []

        broker.ensure_topics([again, whole])
        [line] = caplog.messages
        assert f"topic {again} has 1 partition(s), and KAFKA_PARTITIONS is 3" in line

    def test_a_topic_that_is_not_there(
        self, broker: KafkaBroker, topic: str, topic_name: Callable[[str], str]
    ) -> None:
        absent = topic_name("absent")
        server = NoneOnDemand(broker.address)
        asking = like(broker, questions=server, timing=FIRST_WORD_COUNTS)
        with closing(asking.publisher()) as source:
            source.publish(Message(absent, "key", b""), token=1)
            source.publish(Message(topic, "key", b""), token=2)
            assert collect(source, 2) == [
                Refused(1, f"Kafka has no topic {absent}", unsent=True),
                Acknowledged(2),
            ]

    def test_a_first_word_that_a_topic_is_absent_does_not_count(
        self, broker: KafkaBroker, topic: str
    ) -> None:
        """A broker may hear of a topic later than the one that made it."""
        words = iter([0, 0])
        server = Saying(broker.address, lambda _: next(words, None))
        asking = like(broker, questions=server, timing=KafkaTiming(ask_again=0))
        with closing(asking.publisher()) as source:
            for token in (1, 2):
                source.publish(Message(topic, "key", b""), token=token)
                assert collect(source, 1) == [
                    Failed(token, f"Kafka has no topic {topic}", only_it=True)
                ]
            source.publish(Message(topic, "key", b""), token=3)
            assert collect(source, 1) == [Acknowledged(3)]

    def test_a_topic_that_is_not_shown(
        self,
        broker: KafkaBroker,
        topic: str,
        topic_name: Callable[[str], str],
    ) -> None:
        """As where we have no right to describe it: others flow."""
        hidden = topic_name("hidden")

        def hide(name: str) -> None:
            if name == hidden:
                raise TopicNotShown("TopicAuthorizationFailedError")

        asking = like(broker, questions=Saying(broker.address, hide))
        with closing(asking.publisher()) as source:
            source.publish(Message(hidden, "key", b""), token=1)
            source.publish(Message(topic, "key", b""), token=2)
            assert collect(source, 2) == [
                Failed(1, "TopicAuthorizationFailedError", only_it=True),
                Acknowledged(2),
            ]

    def test_all_publishers_ask_once(
        self, broker: KafkaBroker, topic_name: Callable[[str], str]
    ) -> None:
        asked: list[str] = []

        def count(name: str) -> int:
            asked.append(name)
            return 0

        server = Saying(broker.address, count)
        asking = like(broker, questions=server, timing=FIRST_WORD_COUNTS)
        absent = topic_name("absent")
        for _ in range(2):
            with closing(asking.publisher()) as source:
                source.publish(Message(absent, "key", b""), token=1)
                assert [type(report) for report in collect(source, 1)] == [Refused]
        assert asked == [absent]

    def test_a_broker_that_makes_topics_on_demand(
        self, broker: KafkaBroker, topic_name: Callable[[str], str]
    ) -> None:
        with admin_client(broker.address, timeout=100) as admin:
            assert creates_topics(admin), "the server under test is set so"
        with closing(broker.publisher()) as source:
            source.publish(Message(topic_name("new"), "key", b""), token=1)
            assert collect(source, 1) == [Acknowledged(1)]

    def test_a_topic_deleted_under_the_publisher(self, broker: KafkaBroker, topic: str) -> None:
        server = NoneOnDemand(broker.address)
        timing = KafkaTiming(stalled_after=0.5, absent_after=0)
        with closing(like(broker, questions=server, timing=timing).publisher()) as source:
            source.publish(Message(topic, "key", b""), token=1)
            collect(source, 1)
            with admin_client(broker.address, timeout=100) as admin:
                admin.delete_topics([topic])
                until(lambda: topic not in admin.list_topics())
            source.publish(Message(topic, "key", b""), token=2)
            [report] = collect(source, 1)
            assert isinstance(report, Failed | Refused)
            source.publish(Message(topic, "key", b""), token=2)
            [report] = collect(source, 1)
            assert isinstance(report, Refused | Acknowledged), "the server may have made it anew"
