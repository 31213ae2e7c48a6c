"""What foreign producers write, and what a client cannot read: nothing of it stops a partition that
goes on, and nothing of it is called an outage."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest
from confluent_kafka import Producer
from kafka import codec as kafka_codecs
from kafka.admin import ConfigResource

from brokers import Message, Record, Subscription, broker_from_url
from brokers.cloudevents import NotACloudEvent, from_record
from brokers.kafka.address import KafkaAddress
from brokers.kafka.clients import CLIENTS, KAFKA_PYTHON
from brokers.kafka.timing import KafkaTiming
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python.server import admin_client
from saga_runtime.backoff import Backoff
from tests.integration.brokers.kafka_proxy import KafkaProxy
from tests.integration.brokers.kafka_steps import until
from tests.integration.raw_records import CODECS, RawRecord, raw_producer, send_raw

pytestmark = [
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

PARTITIONS = 2
TIMING = KafkaTiming(retry=Backoff(first=0.3, longest=0.3))


@pytest.fixture(params=CLIENTS)
def broker(request: pytest.FixtureRequest, kafka_server_url: str) -> KafkaBroker:
    made = broker_from_url(
        kafka_server_url, partitions=PARTITIONS, client=request.param, timing=TIMING
    )
    assert isinstance(made, KafkaBroker)
    return made


@pytest.fixture
def topic(broker: KafkaBroker, topic_name: Callable[[str], str]) -> Iterator[str]:
    name = topic_name("orders.commands")
    broker.ensure_topics([name])
    yield name
    with admin_client(broker.address, timeout=100) as client:
        client.delete_topics([name])


def receive(source: Subscription, count: int) -> list[Record]:
    """Records. An outage fails the test: there is none."""
    found: list[Record] = []

    def has_all() -> bool:
        found.extend(source.receive(timeout=0.2, limit=100))
        return len(found) >= count

    until(has_all)
    return found


class TestAHeadersName:
    def test_one_that_is_not_utf_8_is_received_and_says_so(
        self, broker: KafkaBroker, topic: str, kafka_server_url: str
    ) -> None:
        good = [(b"ce_specversion", b"1.0"), (b"ce_id", b"1"), (b"ce_type", b"t")]
        good.append((b"ce_source", b"/s"))
        bad = [*good, (b"na\xffme", b"\xfe")]
        with raw_producer(kafka_server_url) as producer:
            for number, headers in enumerate([good, bad, good, bad, good]):
                raw = RawRecord(b"K", b"%d" % number, headers)
                send_raw(producer, topic, raw, partition=0)
        with closing(broker.subscribe([topic], group=topic)) as source:
            found = receive(source, 5)
            source.commit(found)
        assert [record.value for record in found] == [b"0", b"1", b"2", b"3", b"4"]
        assert {record.key for record in found} == {b"K"}
        for record in found[::2]:
            assert from_record(record).id == "1"
        for record in found[1::2]:
            assert record.unreadable.startswith("a header's name is not UTF-8")
            with pytest.raises(NotACloudEvent, match="a header's name is not UTF-8"):
                from_record(record)
        if broker.client == KAFKA_PYTHON:
            assert ("na\\xffme", b"\xfe") in found[1].headers
        with closing(broker.subscribe([topic], group=topic)) as source:
            assert source.receive(timeout=0.5, limit=10) == [], "they are stepped over"

    def test_many_of_them(self, broker: KafkaBroker, topic: str, kafka_server_url: str) -> None:
        """Python makes a call faster that is made often, and then checks less of its result."""
        with raw_producer(kafka_server_url, compression_type="gzip") as producer:
            for number in range(200):
                name = b"name" if number % 2 else b"na\xffme"
                send_raw(
                    producer, topic, RawRecord(b"K", b"%d" % number, [(b"a", b"b"), (name, b"")])
                )
        with closing(broker.subscribe([topic], group=topic)) as source:
            found = receive(source, 200)
        assert [bool(record.unreadable) for record in found] == [True, False] * 100
        assert {record.headers for record in found[1::2]} == {(("a", b"b"), ("name", b""))}

    def test_names_and_values_that_are_empty_or_absent(
        self, broker: KafkaBroker, topic: str
    ) -> None:
        theirs = Producer({"bootstrap.servers": ",".join(broker.address.servers)})
        theirs.produce(topic, None, None, headers=[("", b""), ("none", None), ("a", b"\0")])
        assert theirs.flush(20) == 0
        with closing(broker.subscribe([topic], group=topic)) as source:
            [found] = receive(source, 1)
        assert (found.key, found.value, found.unreadable) == (None, None, "")
        assert found.headers == (("", b""), ("none", b""), ("a", b"\0"))


class TestACodec:
    @pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
    def test_of_the_topic(self, broker: KafkaBroker, topic: str, codec: str) -> None:
        with admin_client(broker.address, timeout=100) as client:
            client.alter_configs([ConfigResource("TOPIC", topic, {"compression.type": codec})])
        with closing(broker.publisher()) as publisher:
            for token in range(20):
                publisher.publish(Message(topic, "K", b"x" * 1_000), token=token)
            landed = 0

            def has_all() -> bool:
                nonlocal landed
                landed += len(publisher.reports(timeout=0.2))
                return landed == 20

            until(has_all)
        with closing(broker.subscribe([topic], group=topic)) as source:
            assert {record.value for record in receive(source, 20)} == {b"x" * 1_000}

    @pytest.mark.parametrize("codec", CODECS)
    def test_of_another_producer(
        self, broker: KafkaBroker, topic: str, kafka_server_url: str, codec: str | None
    ) -> None:
        values = [b"%d" % number * 500 for number in range(40)]
        with raw_producer(kafka_server_url, compression_type=codec) as producer:
            for value in values[:20]:
                send_raw(producer, topic, RawRecord(b"K", value), partition=0)
            producer.flush()
        theirs = Producer(
            {
                "bootstrap.servers": ",".join(broker.address.servers),
                "compression.type": codec or "none",
                "linger.ms": 50,
            }
        )
        for value in values[20:]:
            theirs.produce(topic, value, partition=0)
        assert theirs.flush(20) == 0
        with closing(broker.subscribe([topic], group=topic)) as source:
            assert [record.value for record in receive(source, 40)] == values

    def test_that_is_missing_is_named_and_the_other_partitions_go_on(
        self,
        topic_name: Callable[[str], str],
        kafka_server_url: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        broker = broker_from_url(
            kafka_server_url, partitions=PARTITIONS, client=KAFKA_PYTHON, timing=TIMING
        )
        topic = topic_name("orders.commands")
        broker.ensure_topics([topic])
        with raw_producer(kafka_server_url, compression_type="zstd") as producer:
            send_raw(producer, topic, RawRecord(b"K", b"packed" * 100), partition=0)
        with (
            monkeypatch.context() as without,
            closing(broker.subscribe([topic], group=topic)) as source,
        ):
            without.setattr(kafka_codecs, "has_zstd", lambda: False)
            assert_named_while_the_other_goes_on(source, topic, kafka_server_url, caplog)
            assert "install kafka-python[lz4,snappy,zstd]" in caplog.text
            without.undo()
            assert [record.value for record in receive(source, 1)] == [b"packed" * 100]


class CorruptingProxy(KafkaProxy):
    """Changes records on their way, behind the broker's checksum."""

    is_corrupting = True

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = self._host + self.port.to_bytes(4)
        with suppress(OSError):
            while data := await reader.read(65_536):
                data = data.replace(self._advertised, own)
                if self.is_corrupting:
                    data = data.replace(b"a good value", b"a bad  value")
                writer.write(data)
                await writer.drain()


def test_a_checksum_that_is_wrong(
    broker: KafkaBroker, topic: str, kafka_server_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of such a batch is believed, and nothing of it is stepped over."""
    with raw_producer(kafka_server_url) as producer:
        for value in (b"before", b"a good value", b"after"):
            send_raw(producer, topic, RawRecord(b"K", value), partition=0).get(10)
    host, port = broker.address.servers[0].rsplit(":", 1)
    with CorruptingProxy(host, int(port)).running() as proxy:
        assert isinstance(proxy, CorruptingProxy)
        address = KafkaAddress((f"127.0.0.1:{proxy.port}",))
        through = KafkaBroker(address, client=broker.client, timing=TIMING)
        with closing(through.subscribe([topic], group=topic)) as source:
            assert [record.value for record in receive(source, 1)] == [b"before"]
            assert_named_while_the_other_goes_on(source, topic, kafka_server_url, caplog)
            proxy.is_corrupting = False
            assert [record.value for record in receive(source, 2)] == [b"a good value", b"after"]


def assert_named_while_the_other_goes_on(
    source: Subscription, topic: str, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Partition 0 cannot be read; partition 1 can, before and after that has been said."""
    for number in range(2):
        with raw_producer(url) as producer:
            send_raw(producer, topic, RawRecord(b"L", b"other %d" % number), partition=1)
        assert [record.value for record in receive(source, 1)] == [b"other %d" % number]
        until(lambda: not source.receive(timeout=0.1, limit=9) and is_logged(topic, caplog))
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        assert source.receive(timeout=0.1, limit=100) == []


def is_logged(topic: str, caplog: pytest.LogCaptureFixture) -> bool:
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    return any(f"{topic}/0/" in each and "cannot be read, trying again" in each for each in lines)
