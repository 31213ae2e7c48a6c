"""What is particular to Kafka: outages, refusals, rebalances."""

import gc
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import kafka.net.manager
import pytest

from brokers import (
    Acknowledged,
    BrokerUnavailable,
    Failed,
    Message,
    Publisher,
    Record,
    Refused,
    Report,
    Subscription,
    broker_from_url,
)
from brokers.kafka import KafkaBroker, member, publisher, run, subscription, topics
from brokers.kafka.address import KafkaAddress
from tests.integration.tcp_proxy import TcpProxy
from tests.services import free_port

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


@pytest.fixture
def broker(kafka_server_url: str) -> KafkaBroker:
    made = broker_from_url(kafka_server_url, partitions=3)
    assert isinstance(made, KafkaBroker)
    return made


@pytest.fixture
def topic(broker: KafkaBroker, topic_name: Callable[[str], str]) -> str:
    name = topic_name("orders.commands")
    broker.ensure_topics([name])
    return name


@pytest.fixture
def proxy(broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> Iterator[TcpProxy]:
    """Between kafka-python and the server, whichever address the server gives for itself."""
    host, port = broker.address.servers[0].rsplit(":", 1)
    connect = kafka.net.manager.create_connection
    with TcpProxy((host, int(port))).running() as running:

        async def by_proxy(net: object, *_address: object, **options: object) -> socket.socket:
            return await connect(net, "127.0.0.1", running.port, **options)

        def create_connection(
            net: object, _host: str, _port: int, socket_options: object = (), **options: object
        ) -> object:
            return by_proxy(net, socket_options=socket_options, **options)

        monkeypatch.setattr(kafka.net.manager, "create_connection", create_connection)
        yield running


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


class TestAnOutage:
    @pytest.mark.parametrize("kind", ["cut", "stall"])
    def test_what_is_queued_is_neither_lost_nor_failed(
        self, broker: KafkaBroker, topic: str, proxy: TcpProxy, kind: str
    ) -> None:
        with closing(broker.publisher()) as source:
            source.publish(Message(topic, "key", b"first"), token=-1)
            assert collect(source, 1) == [Acknowledged(-1)]
            getattr(proxy, kind)()
            for token in range(50):
                source.publish(Message(topic, "key", str(token).encode()), token=token)
            assert source.reports(timeout=3) == []
            proxy.restore()
            assert collect(source, 50) == [Acknowledged(token) for token in range(50)]
        with closing(broker.subscribe([topic], group=topic)) as target:
            values = [record.value for record in receive(target, 51)]
        assert values == [b"first", *(str(token).encode() for token in range(50))]

    def test_a_subscription_says_so_and_goes_on(
        self, broker: KafkaBroker, topic: str, proxy: TcpProxy
    ) -> None:
        with (
            closing(broker.publisher()) as source,
            closing(broker.subscribe([topic], group=topic)) as target,
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
        broker: KafkaBroker,
        topic: str,
        proxy: TcpProxy,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(subscription, "COMMIT_TIMEOUT_MS", 500)
        with closing(broker.publisher()) as source:
            source.publish(Message(topic, "key", b"1"), token=1)
            collect(source, 1)
        with closing(broker.subscribe([topic], group=topic)) as target:
            records = receive(target, 1)
            proxy.cut()
            with pytest.raises(BrokerUnavailable):
                target.commit(records)

    def test_closing_during_it_is_quick_and_leaves_no_thread(
        self, broker: KafkaBroker, topic: str, proxy: TcpProxy
    ) -> None:
        before = set(threading.enumerate())
        source = broker.publisher()
        target = broker.subscribe([topic], group=topic)
        source.publish(Message(topic, "key", b"1"), token=1)
        receive(target, 1)
        proxy.cut()
        source.publish(Message(topic, "key", b"2"), token=2)
        began = time.monotonic()
        source.close()
        target.close()
        assert time.monotonic() - began < 6
        assert {report.token: type(report) for report in source.reports(timeout=0)}[2] is Failed
        until(lambda: set(threading.enumerate()) <= before)

    def test_nothing_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(topics, "ANSWER_TIMEOUT_MS", 500)
        monkeypatch.setattr(run, "CONNECT_TIMEOUT_MS", 500)
        monkeypatch.setattr(member, "CONNECT_TIMEOUT_MS", 500)
        nobody = KafkaBroker(KafkaAddress((f"127.0.0.1:{free_port()}",)))
        with pytest.raises(BrokerUnavailable, match=r"no Kafka broker answers at 127\.0\.0\.1:\d+"):
            nobody.check()
        with pytest.raises(BrokerUnavailable):
            nobody.publisher().publish(Message("a", "key", b""), token=1)
        with pytest.raises(BrokerUnavailable):
            nobody.subscribe(["a"], group="g").receive(timeout=0.1, limit=1)


class TestRefusals:
    def test_a_refusal_judges_no_other_message(self, broker: KafkaBroker, topic: str) -> None:
        with closing(broker.publisher()) as source:
            for token in range(40):
                value = b"x" * 1_100_000 if token == 20 else b"small"
                source.publish(Message(topic, f"key-{token % 5}", value), token=token)
            reports = {report.token: report for report in collect(source, 40)}
        refused = [token for token, report in reports.items() if isinstance(report, Refused)]
        assert refused == [20]
        assert sorted(reports) == list(range(40))

    def test_nothing_goes_out_before_the_refusal_has_been_heard(
        self, broker: KafkaBroker, topic: str
    ) -> None:
        with closing(broker.publisher()) as source:
            source.publish(Message(topic, "key", b"x" * 1_100_000), token=0)
            until(lambda: source._run is not None and source._run.finished)
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
        with topics.admin(broker.address, timeout_ms=5_000) as admin:
            configs = {"max.message.bytes": "2000"}
            shape = {"num_partitions": 1, "replication_factor": 1, "configs": configs}
            admin.create_topics({small: shape})
            admin.wait_for_topics([small])
        with closing(broker.publisher()) as source:
            for token in range(30):
                source.publish(Message(small, "key", b"x" * 300), token=token)
            assert collect(source, 30) == [Acknowledged(token) for token in range(30)]

    @pytest.mark.parametrize("name", ["no/such topic", "x" * 300, ""])
    def test_an_impossible_topic(self, broker: KafkaBroker, name: str) -> None:
        with closing(broker.publisher()) as source:
            source.publish(Message(name, "key", b""), token=1)
            [report] = collect(source, 1)
        assert isinstance(report, Refused)

    def test_a_topic_that_is_not_there(
        self,
        broker: KafkaBroker,
        topic: str,
        topic_name: Callable[[str], str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The server under test may make topics on demand, so here it is not asked to."""
        monkeypatch.setattr(topics, "_created_on_demand", lambda *_: 0)
        absent = topic_name("absent")
        with closing(broker.publisher()) as source:
            source.publish(Message(absent, "key", b""), token=1)
            source.publish(Message(topic, "key", b""), token=2)
            assert collect(source, 2) == [
                Refused(1, f"Kafka has no topic {absent}"),
                Acknowledged(2),
            ]

    def test_a_topic_deleted_under_the_publisher(
        self, broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(publisher, "STALLED_AFTER", 0.5)
        monkeypatch.setattr(topics, "_created_on_demand", lambda *_: 0)
        with closing(broker.publisher()) as source:
            source.publish(Message(topic, "key", b""), token=1)
            collect(source, 1)
            with topics.admin(broker.address, timeout_ms=5_000) as admin:
                admin.delete_topics([topic])
                until(lambda: topic not in admin.list_topics())
            source.publish(Message(topic, "key", b""), token=2)
            [report] = collect(source, 1)
            assert isinstance(report, Failed)
            source.publish(Message(topic, "key", b""), token=2)
            [report] = collect(source, 1)
            assert isinstance(report, Refused | Acknowledged), "the server may have made it anew"

    def test_a_queue_that_is_full(
        self, broker: KafkaBroker, topic: str, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(publisher, "MAX_QUEUED_BYTES", 1_000)
        with closing(broker.publisher()) as source:
            source.publish(Message(topic, "key", b""), token=0)
            collect(source, 1)
            proxy.stall()
            source.publish(Message(topic, "key", b"x" * 1_000), token=1)
            with pytest.raises(BrokerUnavailable, match="1000 bytes wait"):
                source.publish(Message(topic, "key", b""), token=2)
            proxy.restore()
            assert collect(source, 1) == [Acknowledged(1)]


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
