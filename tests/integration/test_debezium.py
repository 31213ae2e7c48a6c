"""Debezium in the place of the relay, with the files of `deploy/debezium`: PostgreSQL's log becomes
what the relay would have sent."""

import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from django.core.management import call_command
from django.db import ProgrammingError, connection, transaction
from kafka import KafkaAdminClient
from pytest_django.plugin import DjangoDbBlocker

from brokers import Record, broker_from_url
from orders.models import Order
from orders.services import Item, place_order
from outbox import enqueue
from outbox.models import OutboxMessage
from relay.segments import make_current
from saga_runtime import project_settings
from saga_runtime.correlation import Correlation, correlated
from tests import processes
from tests.databases import own_database
from tests.integration.connect import SHIPPED, Connect
from tests.integration.on_postgres import default_database
from tests.relaying.stage import Stage
from tests.services import delete_topics

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    pytest.mark.usefixtures("database"),
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

TOPIC = "shop.events"
BEFORE, WRITERS, EACH, KEYS = 300, 4, 200, 20
ORDERS = 10
PARTITIONS = 12
TRACE = Correlation("request-1", f"00-{'a' * 32}-{'b' * 16}-01")
OPTIONAL = ("x-correlation-id", "traceparent")
ROLE = """
    CREATE ROLE debezium LOGIN REPLICATION PASSWORD 'secret';
    GRANT SELECT ON outbox_message TO debezium;
"""


@pytest.fixture(scope="module")
def database(
    logical_postgres_url: str,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[str]:
    """The default database, prepared for Debezium while a message waits already."""
    with (
        own_database(logical_postgres_url) as url,
        django_db_blocker.unblock(),
        default_database(url),
    ):
        call_command("migrate", verbosity=0)
        call_command("load_sample_stock")
        put("waits already")
        with psycopg.connect(url) as owner:
            owner.execute((SHIPPED / "outbox.sql").read_bytes())
            owner.execute(ROLE)
        yield url


@pytest.fixture(scope="module")
def stage(
    database: str, kafka_server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """For the processes of the service, none of which is a relay of Debezium's topics."""
    separator = "&" if "?" in kafka_server_url else "?"
    url = f"{kafka_server_url}{separator}prefix=test-{uuid.uuid4().hex[:12]}."
    stage = Stage(tmp_path_factory.mktemp("service"), database_url=database, broker_url=url)
    stage.env["KAFKA_PARTITIONS"] = str(PARTITIONS)
    yield stage
    stage.clean_up()
    delete_topics(url)


@pytest.fixture(scope="module")
def connect(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connect]:
    """Not yet started."""
    role = urlsplit(stage.database_url)
    url = role._replace(netloc=f"debezium:secret@{role.hostname}:{role.port}").geturl()
    directory = tmp_path_factory.mktemp("connect")
    connect = Connect(
        directory, database_url=url, broker_url=stage.broker_url, source=project_settings.source()
    )
    yield connect
    connect.stop()
    servers = broker_from_url(stage.broker_url).address.servers  # type: ignore[attr-defined]
    with closing(KafkaAdminClient(bootstrap_servers=[*servers])) as admin:
        admin.delete_topics([connect.heartbeats])


@pytest.fixture
def running(connect: Connect) -> Connect:
    """The connector, and it has begun."""
    connect.start()
    connect.until(lambda: rows_of("SELECT 1 FROM pg_replication_slots WHERE active"))
    return connect


class Topics:
    """All that came in some topics, read by one group that never commits."""

    def __init__(self, broker_url: str, *topics: str) -> None:
        self._subscription = broker_from_url(broker_url).subscribe(topics, group=uuid.uuid4().hex)
        self.records: list[Record] = []

    def __len__(self) -> int:
        self.records += self._subscription.receive(timeout=0.2, limit=5_000)
        return len(self.records)

    def close(self) -> None:
        self._subscription.close()


def put(key: str, payload: object = None, **options: Any) -> None:
    with transaction.atomic():
        row = enqueue(topic=TOPIC, key=key, type="shop.sold", payload=payload)
        if options:
            OutboxMessage.objects.filter(id=row.id).update(**options)


def put_before() -> None:
    """Into two segments, the earlier ids into the one that comes later."""
    for number, segment in enumerate(("outbox_message_3", "outbox_message_1")):
        make_current(segment)
        for n in range(BEFORE // 2):
            put(f"key-{n % KEYS}", {"segment": number, "n": n})
    with correlated(TRACE):
        put("traced", {"text": "é\u2028\0".strip("\0"), "amount": Decimal("1.50")})
    put("on the second", [], created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    put("schlüssel/ключ", "x" * 300_000)


def write(writer: int) -> None:
    """Transactions of one and of two messages; each tenth is rolled back."""
    try:
        for n in range(EACH):
            with transaction.atomic():
                enqueue(topic=TOPIC, key=f"key-{n % KEYS}", type="shop.sold", payload=[writer, n])
                transaction.set_rollback(n % 10 == 9)
    finally:
        connection.close()


def by_key(records: list[Record]) -> dict[bytes | None, list[Any]]:
    """What consumers see of each key, in order."""
    found: defaultdict[bytes | None, list[Any]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.offset):
        sent = {n: text for n, text in record.headers if text or n not in OPTIONAL}
        found[record.key].append((record.partition, record.value, sent))
    return found


def rows_of(sql: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        found: list[Any] = cursor.fetchall()
    return found


def in_outbox() -> int:
    return OutboxMessage.objects.count()


def test_messages_come_as_the_relay_sends_them(stage: Stage, connect: Connect) -> None:
    put_before()
    snapshot = in_outbox()
    connect.start()
    # A topic that nobody has made: Connect gives it its partitions.
    connect.until(lambda: TOPIC in topics_of(stage.broker_url))
    with closing(Topics(stage.broker_url, TOPIC)) as captured:
        connect.until(lambda: len(captured) >= snapshot)
        writers = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        expected = in_outbox()
        assert expected == snapshot + WRITERS * EACH * 9 // 10
        connect.until(lambda: len(captured) >= expected)

    relayed_url = f"{stage.broker_url}relayed."
    broker_from_url(relayed_url, partitions=PARTITIONS).ensure_topics([TOPIC])
    relay = stage.relay(SAGAZ_BROKER_URL=relayed_url)
    connect.until(lambda: not in_outbox())
    assert relay.terminate()[0] == 0
    with closing(Topics(relayed_url, TOPIC)) as relayed:
        connect.until(lambda: len(relayed) >= expected)

    assert len(captured.records) == len(relayed.records) == expected
    assert by_key(captured.records) == by_key(relayed.records)


def topics_of(broker_url: str) -> set[str]:
    address = broker_from_url(broker_url).address  # type: ignore[attr-defined]
    with closing(KafkaAdminClient(bootstrap_servers=[*address.servers])) as admin:
        return {name.removeprefix(address.prefix) for name in admin.list_topics()}


def test_orders_are_fulfilled(stage: Stage, running: Connect) -> None:
    consumer = stage.relay(command=(*processes.MANAGE, "run_saga_consumer", "--processes", "1"))
    for n in range(ORDERS):
        item = Item(product_id="ITEM-1", name="Widget", quantity=1)
        place_order(order_id=f"ORD-{n}", user_id="u", items=[item], amount=Decimal("9.50"))
    running.until(lambda: Order.objects.filter(status="fulfilled").count() == ORDERS)
    with closing(Topics(stage.broker_url, "orders.events")) as events:
        running.until(lambda: len(events) >= ORDERS)
    types = [dict(record.headers)["ce_type"] for record in events.records]
    assert types == [b"order.fulfilled"] * ORDERS
    assert consumer.terminate()[0] == 0


def delete_published(*, slot: str = "outbox", patience: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CALL outbox_delete_published(%s, %s * interval '1 s')", [slot, patience])


def test_only_what_kafka_has_is_deleted(running: Connect) -> None:
    put("K")
    delete_published(patience=60)
    assert in_outbox() == 0


def test_a_slot_that_nobody_reads_confirms_nothing() -> None:
    """Its place is behind the row from the start, and as far as the log goes."""
    put("K")
    rows_of("SELECT pg_create_logical_replication_slot('unread', 'pgoutput')")
    rows_of("SELECT pg_replication_slot_advance('unread', pg_current_wal_flush_lsn())")
    delete_published(slot="unread", patience=1)
    rows_of("SELECT pg_drop_replication_slot('unread')")
    assert OutboxMessage.objects.filter(key="K").exists()


def test_a_slot_that_is_lost_loses_nothing(stage: Stage, running: Connect) -> None:
    """What Debezium has not confirmed is not deleted, and so is read again."""
    running.stop()
    put("stopped")
    delete_published(patience=1)
    rows_of("SELECT pg_drop_replication_slot('outbox')")
    put("without a slot")
    with pytest.raises(ProgrammingError, match="no rows"):
        delete_published(patience=1)
    kept = set(OutboxMessage.objects.values_list("key", flat=True))
    assert kept >= {"stopped", "without a slot"}

    running.start()
    with closing(Topics(stage.broker_url, TOPIC)) as captured:
        running.until(
            lambda: (
                len(captured)
                and {b"stopped", b"without a slot"} <= {record.key for record in captured.records}
            )
        )
    delete_published(patience=60)
    assert in_outbox() == 0
