"""What is particular to Kafka: outages, refusals, rebalances."""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from kafka.cluster import ClusterMetadata

from brokers import (
    Acknowledged,
    BrokerSlow,
    BrokerUnavailable,
    Failed,
    Message,
    Publisher,
    Record,
    Refused,
    Report,
    Subscription,
    await_broker,
    broker_from_url,
)
from brokers.kafka import topic_shapes
from brokers.kafka.address import KafkaAddress
from brokers.kafka.clients import CLIENTS, KAFKA_PYTHON, LIBRDKAFKA
from brokers.kafka.known_topics import TopicNotShown
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python.publisher import KafkaPythonPublisher
from brokers.kafka_python.server import KafkaServer, admin_client, creates_topics, setting
from brokers.librdkafka import LibrdkafkaMember, LibrdkafkaPublisher
from brokers.librdkafka import connecting as librdkafka_connecting
from tests.integration.tcp_proxy import TcpProxy
from tests.ports import free_port

pytestmark = [
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

PATIENCE = 40.0


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def timing() -> KafkaTiming:
    return DEFAULT_TIMING


@pytest.fixture
def broker(kafka_server_url: str, client: str, timing: KafkaTiming) -> KafkaBroker:
    made = broker_from_url(kafka_server_url, partitions=3, client=client, timing=timing)
    assert isinstance(made, KafkaBroker)
    return made


def like(broker: KafkaBroker, **options: Any) -> KafkaBroker:
    """Make a broker that differs in these options."""
    return KafkaBroker(
        broker.address, partitions=broker.partitions, client=broker.client, **options
    )


@pytest.fixture
def topic(broker: KafkaBroker, topic_name: Callable[[str], str]) -> str:
    name = topic_name("orders.commands")
    broker.ensure_topics([name])
    return name


class KafkaProxy(TcpProxy):
    """Also puts its own port where the server gives its address, so that clients come back to it.
    What changes are four bytes behind the host's name."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__((host, port))
        self._advertised = host.encode() + port.to_bytes(4)
        self._host = host.encode()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = self._host + self.port.to_bytes(4)
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._flowing.wait()
                writer.write(data.replace(self._advertised, own))
                await writer.drain()


class SlowProxy(KafkaProxy):
    """Where it stalls, it still passes on the first words of each connection."""

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = self._host + self.port.to_bytes(4)
        is_first = True
        with suppress(OSError):
            while data := await reader.read(65_536):
                if not is_first:
                    await self._flowing.wait()
                is_first = False
                writer.write(data.replace(self._advertised, own))
                await writer.drain()


@pytest.fixture
def proxy(broker: KafkaBroker) -> Iterator[KafkaProxy]:
    host, port = broker.address.servers[0].rsplit(":", 1)
    with KafkaProxy(host, int(port)).running() as running:
        assert isinstance(running, KafkaProxy)
        yield running


@pytest.fixture
def proxied(broker: KafkaBroker, proxy: KafkaProxy) -> KafkaBroker:
    """The broker behind the proxy."""
    return KafkaBroker(KafkaAddress((f"127.0.0.1:{proxy.port}",)), client=broker.client)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"


def collect(source: Publisher, count: int) -> list[Report]:
    reports: list[Report] = []

    def has_all() -> bool:
        reports.extend(source.reports(timeout=0.1))
        return len(reports) >= count

    until(has_all)
    return reports


def receive(source: Subscription, count: int) -> list[Record]:
    """Records, through whatever outage there is."""
    records: list[Record] = []

    def has_all() -> bool:
        try:
            records.extend(source.receive(timeout=0.2, limit=100))
        except BrokerUnavailable:
            time.sleep(0.1)
        return len(records) >= count

    until(has_all)
    return records


def is_unavailable(call: Callable[[], object]) -> bool:
    try:
        call()
    except BrokerUnavailable:
        return True
    return False


def has_ended(source: KafkaPythonPublisher | LibrdkafkaPublisher) -> bool:
    """Whether its producer has had an error. librdkafka's thread says so to whoever asks next."""
    if isinstance(source, LibrdkafkaPublisher) and source._producer is not None:
        source._producer.poll(0)
    return source._producer is not None and source._producer.finished


class TestAnOutage:
    @pytest.mark.parametrize("kind", ["cut", "stall"])
    def test_what_is_queued_is_neither_lost_nor_failed(
        self, proxied: KafkaBroker, topic: str, proxy: KafkaProxy, kind: str
    ) -> None:
        with closing(proxied.publisher()) as source:
            source.publish(Message(topic, "key", b"first"), token=-1)
            assert collect(source, 1) == [Acknowledged(-1)]
            getattr(proxy, kind)()
            for token in range(50):
                source.publish(Message(topic, "key", str(token).encode()), token=token)
            assert source.reports(timeout=3) == []
            proxy.restore()
            assert collect(source, 50) == [Acknowledged(token) for token in range(50)]
        with closing(proxied.subscribe([topic], group=topic)) as target:
            values = [record.value for record in receive(target, 51)]
        assert values == [b"first", *(str(token).encode() for token in range(50))]

    def test_a_subscription_says_so_and_goes_on(
        self, proxied: KafkaBroker, topic: str, proxy: KafkaProxy
    ) -> None:
        with (
            closing(proxied.publisher()) as source,
            closing(proxied.subscribe([topic], group=topic)) as target,
        ):
            source.publish(Message(topic, "key", b"1"), token=1)
            target.commit(receive(target, 1))
            proxy.cut()
            until(lambda: is_unavailable(lambda: target.receive(timeout=0.2, limit=10)))
            source.publish(Message(topic, "key", b"2"), token=2)
            proxy.restore()
            [record] = receive(target, 1)
            assert record.value == b"2"
            target.commit([record])
            assert collect(source, 2) == [Acknowledged(1), Acknowledged(2)]

    def test_a_commit_during_it_is_unavailable(
        self,
        proxied: KafkaBroker,
        topic: str,
        proxy: KafkaProxy,
    ) -> None:
        hurried = like(proxied, timing=KafkaTiming(commit=0.5, session=6.0))
        with closing(hurried.publisher()) as source:
            source.publish(Message(topic, "key", b"1"), token=1)
            collect(source, 1)
        with closing(hurried.subscribe([topic], group=topic)) as target:
            records = receive(target, 1)
            proxy.cut()
            with pytest.raises(BrokerUnavailable):
                target.commit(records)

    def test_closing_during_it_is_quick_and_leaves_no_thread(
        self, proxied: KafkaBroker, topic: str, proxy: KafkaProxy
    ) -> None:
        before = set(threading.enumerate())
        source = proxied.publisher()
        target = proxied.subscribe([topic], group=topic)
        source.publish(Message(topic, "key", b"1"), token=1)
        receive(target, 1)
        proxy.cut()
        source.publish(Message(topic, "key", b"2"), token=2)
        began = time.monotonic()
        source.close()
        target.close()
        assert time.monotonic() - began < 9  # a client by itself takes ten and more
        assert {report.token: type(report) for report in source.reports(timeout=0)}[2] is Failed
        until(lambda: set(threading.enumerate()) <= before)

    @pytest.mark.transactions
    def test_a_commit_of_a_transaction_can_be_called_again(
        self, proxied: KafkaBroker, topic: str, proxy: KafkaProxy
    ) -> None:
        with closing(proxied.publisher(transactional_id=topic)) as source:
            source.publish(Message(topic, "key", b"1"), token=1)
            source.reports(timeout=0.5)
            proxy.cut()
            with pytest.raises(BrokerUnavailable):
                source.commit(timeout=0.5)
            with pytest.raises(BrokerUnavailable, match="commit"):
                source.publish(Message(topic, "key", b"2"), token=2)
            proxy.restore()
            until(lambda: not is_unavailable(lambda: source.commit(timeout=1)))
            assert collect(source, 1) == [Acknowledged(1)]

    def test_nothing_answers(self, client: str) -> None:
        address = KafkaAddress((f"127.0.0.1:{free_port()}",))
        nobody = KafkaBroker(address, client=client, timing=KafkaTiming(answer=0.5, connect=0.5))
        with pytest.raises(BrokerUnavailable, match=r"no Kafka broker answers at 127\.0\.0\.1:\d+"):
            nobody.check()
        with pytest.raises(BrokerUnavailable):
            nobody.publisher().publish(Message("a", "key", b""), token=1)
        with pytest.raises(BrokerUnavailable):
            nobody.subscribe(["a"], group="g").receive(timeout=0.1, limit=1)

    def test_one_that_is_slow_answers(
        self, proxied: KafkaBroker, topic: str, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It says so, and at start-up it is waited for."""
        hurried = like(proxied, timing=KafkaTiming(create=1.0))
        real, asked = KafkaAdminClient.list_topics, 0

        def list_topics(client: KafkaAdminClient) -> list[str]:
            nonlocal asked
            asked += 1
            client.describe_cluster()
            if asked < 3:
                proxy.stall()
            try:
                return real(client)
            finally:
                proxy.restore()

        monkeypatch.setattr(KafkaAdminClient, "list_topics", list_topics)
        with pytest.raises(BrokerSlow, match=r"a Kafka broker answers at .*, but not in time: "):
            hurried.ensure_topics([topic])
        await_broker(hurried, topics=[topic])
        assert asked == 3

    def test_a_subscription_to_one_that_is_slow(self, broker: KafkaBroker, topic: str) -> None:
        """It greets whoever comes, and then does not answer."""
        host, port = broker.address.servers[0].rsplit(":", 1)
        with SlowProxy(host, int(port)).running() as proxy:
            proxy.stall()
            address = KafkaAddress((f"127.0.0.1:{proxy.port}",))
            slow = KafkaBroker(address, client=broker.client, timing=KafkaTiming(connect=1.5))
            with closing(slow.subscribe([topic], group=topic)) as subscription:
                with pytest.raises(
                    BrokerSlow, match=r"a Kafka broker answers at .*, but not in time"
                ):
                    subscription.receive(timeout=0.1, limit=1)
                proxy.restore()
                assert subscription.receive(timeout=0.1, limit=1) == []

    def test_at_start_up_nobody_is_waited_for_who_never_answered(self, client: str) -> None:
        address = KafkaAddress((f"127.0.0.1:{free_port()}",))
        nobody = KafkaBroker(address, client=client, timing=KafkaTiming(answer=0.5))
        with pytest.raises(BrokerUnavailable, match="no Kafka broker answers"):
            await_broker(nobody, topics=["a"])

    def test_one_that_acknowledges_nothing_is_told_of(
        self,
        proxied: KafkaBroker,
        topic: str,
        proxy: KafkaProxy,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """As where replicas are missing: both clients are connected, wait, and say nothing."""
        hurried = like(proxied, timing=KafkaTiming(stalled_after=1.0))
        with closing(hurried.publisher()) as source:
            source.publish(Message(topic, "key", b""), token=0)
            collect(source, 1)
            proxy.stall()
            source.publish(Message(topic, "key", b"x"), token=1)
            until(lambda: not source.reports(timeout=0.1) and "acknowledges nothing" in caplog.text)
            proxy.restore()
            assert collect(source, 1) == [Acknowledged(1)]
            assert "answers again" in caplog.text

    def test_a_queue_that_is_full(
        self, proxied: KafkaBroker, topic: str, proxy: KafkaProxy
    ) -> None:
        with closing(like(proxied, max_queued_bytes=1_000).publisher()) as source:
            source.publish(Message(topic, "key", b""), token=0)
            collect(source, 1)
            proxy.stall()
            source.publish(Message(topic, "key", b"x" * 1_000), token=1)
            with pytest.raises(BrokerUnavailable, match=r"wait for .* already"):
                source.publish(Message(topic, "key", b"x" * 100), token=2)
            proxy.restore()
            assert collect(source, 1) == [Acknowledged(1)]


class LimitsUntold(KafkaServer):
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


@pytest.fixture
def untold(broker: KafkaBroker) -> KafkaBroker:
    return like(broker, questions=LimitsUntold(broker.address))


class TestRefusals:
    def test_a_refusal_judges_no_other_message(self, untold: KafkaBroker, topic: str) -> None:
        with closing(untold.publisher()) as source:
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
            source.publish(message, token=4)
            [report] = collect(source, 1)
            assert isinstance(report, Refused), "it is sent, and the broker says so"
            assert not report.unsent

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
        self, untold: KafkaBroker, topic: str
    ) -> None:
        with closing(untold.publisher()) as source:
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
        with admin_client(broker.address, timeout=5) as admin:
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
        with admin_client(broker.address, timeout=5) as admin:
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
            with admin_client(broker.address, timeout=5) as admin:
                admin.delete_topics([topic])
                until(lambda: topic not in admin.list_topics())
            source.publish(Message(topic, "key", b""), token=2)
            [report] = collect(source, 1)
            assert isinstance(report, Failed | Refused)
            source.publish(Message(topic, "key", b""), token=2)
            [report] = collect(source, 1)
            assert isinstance(report, Refused | Acknowledged), "the server may have made it anew"


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
        with admin_client(broker.address, timeout=5) as admin:
            admin.delete_topics([topic])
            until(lambda: topic not in admin.list_topics())
            admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}})
        until(lambda: any("partition(s), and" in line for line in said()))
        line = said()[-1]
        assert f"the topic {topic} has 1 partition(s), and KAFKA_PARTITIONS is 3" in line
        assert said().count(line) == 1

    def test_deleted(self, broker: KafkaBroker, topic: str, said: Callable[[], list[str]]) -> None:
        with admin_client(broker.address, timeout=5) as admin:
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
        with admin_client(broker.address, timeout=5) as admin:
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
            with admin_client(broker.address, timeout=5) as admin:
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
        with admin_client(broker.address, timeout=5) as admin:
            admin.create_partitions({topic: 6})
        until(lambda: bool(said()))
        line = said()[0]
        assert f"the topic {topic} has 6 partitions, and had 3: keys move" in line


@pytest.mark.usefixtures("asked_for_none")
def test_a_new_producer_notices_a_topic_with_fewer_partitions(
    broker: KafkaBroker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The one before it may have ended with the topic that was deleted."""
    with admin_client(broker.address, timeout=5) as admin:
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
    with admin_client(broker.address, timeout=5) as admin:
        admin.create_topics({small: {"num_partitions": 1, "replication_factor": 1}})
        admin.wait_for_topics([small])
    with closing(broker.publisher()) as source:
        source.publish(Message(small, "key", b""), token=1)
        assert collect(source, 1) == [Acknowledged(1)]
    assert [each for each in caplog.records if each.name == topic_shapes.__name__] == []


def set_limit(broker: KafkaBroker, topic: str, size: int) -> None:
    set_option(broker, topic, "max.message.bytes", str(size))


def set_option(broker: KafkaBroker, topic: str, name: str, value: str) -> None:
    with admin_client(broker.address, timeout=5) as admin:
        admin.alter_configs([ConfigResource("TOPIC", topic, {name: value})])
        until(lambda: setting(admin, "TOPIC", topic, name) == value)


class TestAGroup:
    def test_two_subscriptions_share(self, broker: KafkaBroker, topic: str) -> None:
        with (
            closing(broker.subscribe([topic], group=topic)) as one,
            closing(broker.subscribe([topic], group=topic)) as two,
            closing(broker.publisher()) as source,
        ):
            received: dict[int, list[Record]] = {0: [], 1: []}
            sent = iter(range(10_000))

            def both_receive() -> bool:
                number = next(sent)
                source.publish(Message(topic, f"key-{number}", b""), token=number)
                for index, target in enumerate((one, two)):
                    records = target.receive(timeout=0.05, limit=100)
                    target.commit(records)
                    received[index] += records
                return bool(received[0] and received[1])

            until(both_receive)

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
            received: dict[int, list[Record]] = {0: [], 1: []}
            sent = iter(range(10_000))

            def both_receive() -> bool:
                number = next(sent)
                source.publish(Message(topic, f"key-{number}", b""), token=number)
                for index, target in enumerate((one, two)):
                    records = target.receive(timeout=0.05, limit=100)
                    target.commit(records)
                    received[index] += records
                return bool(received[0] and received[1])

            until(both_receive)

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
