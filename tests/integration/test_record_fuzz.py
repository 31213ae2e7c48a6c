"""Records of every kind on a topic of commands, by hypothesis over real Kafka: the consumer lives,
each good one is accepted, each bad one is kept, and nobody calls that an outage."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Message as Delivered
from confluent_kafka import Producer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from brokers import broker_from_url
from brokers.kafka.clients import CLIENTS
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python.server import admin_client
from sagas.inbox.consumer import SagaConsumer
from sagas.models import RefusedCommand, Saga
from tests import strategies
from tests.integration.raw_records import CODECS, RawRecord, raw_producer, send_raw
from tests.unit.sagas.inbox.test_accepting import JSON, Travel
from tests.unit.sagas.saga_running import Register
from tests.unit.waiting import in_thread, until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    pytest.mark.django_db(transaction=True),
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

TOPIC = "travel.commands"
NOW = int(time.time() * 1000)
TIMESTAMPS = st.none() | st.integers(0, NOW + 1_800_000) | st.sampled_from([0, 1, NOW])
LARGE = 300_000

Headers = tuple[tuple[bytes, bytes | None], ...]


class Fuzz(NamedTuple):
    """`way`: one of `CODECS`, or how the transaction ends in which it is written."""

    record: RawRecord
    is_good: bool
    way: str | None


def whole(id_: str) -> Headers:
    return (
        (b"ce_specversion", b"1.0"),
        (b"ce_id", id_.encode()),
        (b"ce_type", b"travel.book"),
        (b"ce_source", b"/fuzz"),
        (b"ce_subject", b"K"),
    )


NAMES = strategies.text(max_size=12).map(lambda text: f"x-{text}".encode())
TEXTS = strategies.text(max_size=30).map(str.encode)
MORE = st.lists(st.tuples(NAMES, TEXTS), max_size=4).map(tuple)
NOT_UTF8 = st.binary(max_size=8).map(lambda rest: b"x-\xff" + rest)
KEYS = st.none() | st.binary(max_size=40) | st.just(b"K")
BIG = st.just(b"x" * LARGE)

GOOD = st.tuples(st.uuids(), MORE, KEYS, TIMESTAMPS, st.booleans()).map(
    lambda found: RawRecord(
        key=found[2],
        value=json.dumps({"trip": str(found[0]), "more": "x" * 3_000 * found[4]}).encode(),
        headers=(*whole(str(found[0])), *found[1]),
        timestamp=found[3],
    )
)
BODIES = st.none() | st.binary(max_size=60) | JSON.map(lambda value: json.dumps([value]).encode())
# With all the headers of a command, but a body that is none; with a body, but one header that
# cannot be read; without the headers.
ODD_BODY = st.tuples(st.uuids(), MORE, BODIES | BIG).map(
    lambda found: (found[2], (*whole(str(found[0])), *found[1]))
)
ODD_NAME = st.tuples(st.uuids(), NOT_UTF8, st.binary(max_size=9)).map(
    lambda found: (
        json.dumps({"trip": str(found[0])}).encode(),
        (*whole(str(found[0])), (found[1], found[2])),
    )
)
ODD_VALUE = st.tuples(st.uuids(), NAMES).map(
    lambda found: (
        json.dumps({"trip": str(found[0])}).encode(),
        (*whole(str(found[0])), (found[1], b"\xff")),
    )
)
ANY_HEADERS = st.lists(
    st.tuples(st.binary(max_size=12) | NAMES, st.none() | st.binary(max_size=20)), max_size=5
).map(tuple)
NO_COMMAND = st.tuples(BODIES, ANY_HEADERS)
BAD = st.tuples(KEYS, ODD_BODY | ODD_NAME | ODD_VALUE | NO_COMMAND, TIMESTAMPS).map(
    lambda found: RawRecord(found[0], found[1][0], found[1][1], found[2])
)
WAYS = st.sampled_from([*CODECS, "commit", "abort"])
RECORDS = st.tuples(GOOD, st.just(value=True), WAYS) | st.tuples(BAD, st.just(value=False), WAYS)


def fuzz(count: int) -> list[Fuzz]:
    found: list[Fuzz] = []

    @settings(
        max_examples=count // 25,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(RECORDS.map(lambda each: Fuzz(*each)), min_size=25, max_size=25))
    def gather(batch: list[Fuzz]) -> None:
        found.extend(batch)

    gather()
    return found[:count]


class Writer:
    """Writes records as foreign producers do, and remembers where each is."""

    def __init__(self, url: str, topic: str, stack: ExitStack) -> None:
        self._topic = topic
        self._producers = {
            codec: stack.enter_context(
                raw_producer(url, compression_type=codec, linger_ms=5, max_request_size=LARGE * 4)
            )
            for codec in CODECS
        }
        servers = url.removeprefix("kafka://").partition("?")[0]
        self._plain = Producer({"bootstrap.servers": servers})
        self._transactional = Producer(
            {"bootstrap.servers": servers, "transactional.id": f"fuzz-{uuid.uuid4()}"}
        )
        self._transactional.init_transactions(30)

    def write(self, batch: list[Fuzz]) -> list[tuple[Fuzz, tuple[int, int]]]:
        """Returns partition and offset of each that will be received."""
        placed: list[tuple[Fuzz, tuple[int, int]]] = []
        futures = []
        for each in batch:
            if each.way in ("commit", "abort"):
                self._in_transaction(each, placed)
            elif has_nothing(each.record):
                self._by_librdkafka(self._plain, each, placed)
            else:
                futures.append(
                    (each, send_raw(self._producers[each.way], self._topic, each.record))
                )
        for producer in self._producers.values():
            producer.flush(30)
        for each, future in futures:
            where = future.get(30)
            placed.append((each, (where.partition, where.offset)))
        assert self._plain.flush(30) == 0
        return placed

    def _in_transaction(self, each: Fuzz, placed: list[tuple[Fuzz, tuple[int, int]]]) -> None:
        """Its end is a control record. What librdkafka cannot write at all goes out without."""
        if not is_text(each.record):
            each = each._replace(record=each.record._replace(headers=()), is_good=False)
        self._transactional.begin_transaction()
        if each.way == "commit":
            self._by_librdkafka(self._transactional, each, placed)
            self._transactional.commit_transaction(30)
        else:
            self._by_librdkafka(self._transactional, each, [])
            self._transactional.flush(30)
            self._transactional.abort_transaction(30)

    def _by_librdkafka(
        self, producer: Producer, each: Fuzz, placed: list[tuple[Fuzz, tuple[int, int]]]
    ) -> None:
        record = each.record

        def land(error: object, delivered: Delivered) -> None:
            assert error is None
            placed.append((each, (delivered.partition() or 0, delivered.offset() or 0)))

        headers: Any = [(name.decode(), value) for name, value in record.headers]
        producer.produce(
            self._topic,
            record.value,
            record.key,
            on_delivery=land,
            headers=headers,
            timestamp=record.timestamp or 0,  # 0 is now
        )


def has_nothing(record: RawRecord) -> bool:
    """kafka-python's producer writes neither a header without a value nor a record without both
    key and value."""
    is_bare = record.key is None and record.value is None
    has_none = any(value is None for _, value in record.headers)
    return (is_bare or has_none) and is_text(record)


def is_text(record: RawRecord) -> bool:
    """librdkafka's producer takes headers' names as text, without NUL."""
    try:
        return not any("\0" in name.decode() for name, _ in record.headers)
    except UnicodeDecodeError:
        return False


def writable(each: Fuzz) -> Fuzz:
    """What neither of the two producers can write gets a key, and empty values for absent ones."""
    record = each.record
    if is_text(record):
        return each
    headers = tuple((name, value or b"") for name, value in record.headers)
    return each._replace(record=record._replace(key=record.key or b"", headers=headers))


@pytest.fixture(params=CLIENTS)
def broker(
    request: pytest.FixtureRequest, kafka_server_url: str, topic_name: Callable[[str], str]
) -> Iterator[KafkaBroker]:
    url = f"{kafka_server_url}?prefix={topic_name('')}"
    made = broker_from_url(url, partitions=3, client=request.param)
    assert isinstance(made, KafkaBroker)
    made.ensure_topics([TOPIC])
    yield made
    with admin_client(made.address, timeout=100) as client:
        client.delete_topics([made.address.named(TOPIC)])


@pytest.mark.usefixtures("postgres")
def test_the_consumer_lives_and_keeps_each(
    broker: KafkaBroker,
    kafka_server_url: str,
    register: Register,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_and_look(broker, kafka_server_url, register, caplog, count=150)


@pytest.mark.soak
@pytest.mark.usefixtures("postgres")
def test_five_thousand(
    broker: KafkaBroker,
    kafka_server_url: str,
    register: Register,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_and_look(broker, kafka_server_url, register, caplog, count=5_000)


def write_and_look(
    broker: KafkaBroker,
    url: str,
    register: Register,
    caplog: pytest.LogCaptureFixture,
    *,
    count: int,
) -> None:
    register(Travel)
    records = [writable(each) for each in fuzz(count)]
    placed: list[tuple[Fuzz, tuple[int, int]]] = []
    consumer = SagaConsumer(broker, topics=[TOPIC], group="fuzz")
    with ExitStack() as stack:
        writer = Writer(url, broker.address.named(TOPIC), stack)
        stack.enter_context(in_thread(consumer.run))
        for start in range(0, count, 50):
            placed += writer.write(records[start : start + 50])
        good = {json.loads(e.record.value or b"")["trip"] for e, _ in placed if e.is_good}
        bad = {where for e, where in placed if not e.is_good}
        until(lambda: RefusedCommand.objects.count() >= len(bad), timeout=60)
        until(lambda: Saga.objects.count() >= len(good), timeout=60)
    assert {*Saga.objects.values_list("key", flat=True)} == good
    assert {*RefusedCommand.objects.values_list("partition", "offset")} == bad
    assert not RefusedCommand.objects.filter(reason="").exists()
    log_text = " ".join(record.getMessage() for record in caplog.records)
    assert "does not answer" not in log_text
    assert "cannot be" not in log_text.replace("cannot be read:", "")
