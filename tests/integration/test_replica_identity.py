"""A publication that covers the outbox, for a replica or an upgrade, refuses no DELETE."""

import threading
from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from outbox import enqueue
from outbox.models import OutboxMessage
from relay.assembly import assemble_relay
from tests.databases import own_database
from tests.integration.on_postgres import default_database
from tests.unit.relay.scripted import Kafka

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

# The columns by which a replica knows a row again, of every table that is published. A table
# without any refuses UPDATE and DELETE as soon as it is published.
IDENTITIES = """
    SELECT c.relname, a.attname, a.attgenerated <> ''
    FROM pg_class AS c
    LEFT JOIN pg_index AS i ON i.indrelid = c.oid
        AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END
    LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
"""
SEGMENTS = {f"outbox_message_{number}" for number in range(4)}


def run(sql: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def put(*keys: str) -> None:
    with transaction.atomic():
        for key in keys:
            enqueue(topic="t", key=key, type="x", payload=0)


def drain() -> int:
    return assemble_relay(Kafka(), source="/tests").drain(threading.Event())


@pytest.fixture
def published(postgres: None) -> Iterator[None]:
    run("CREATE PUBLICATION everything FOR ALL TABLES")
    yield
    run("DROP PUBLICATION everything")


def test_no_table_is_identified_by_a_generated_column(postgres: None) -> None:
    found = run(IDENTITIES)
    assert {table for table, _, _ in found} >= SEGMENTS | {"outbox_parked", "sagas_saga"}
    assert [(table, column) for table, column, generated in found if generated or not column] == []
    of_segments = {(table, column) for table, column, _ in found if table in SEGMENTS}
    assert of_segments == {(table, column) for table in SEGMENTS for column in ("id", "segment")}


def test_the_relay_deletes_what_is_published_to_replicas(published: None) -> None:
    put("a", "b")
    assert drain() == 2
    assert not OutboxMessage.objects.exists()


@pytest.mark.soak
@pytest.mark.usefixtures("newest")
class TestOnPostgreSQL18:
    """Which refuses a replica identity with a generated column."""

    @pytest.fixture
    def newest(self, newest_postgres_url: str) -> Iterator[None]:
        with own_database(newest_postgres_url) as url, default_database(url):
            call_command("migrate", verbosity=0)
            run("CREATE PUBLICATION everything FOR ALL TABLES")
            assert connection.pg_version >= 180_000  # type: ignore[attr-defined]
            yield

    def test_the_relay_deletes_what_is_published_to_replicas(self) -> None:
        put("a", "b")
        assert drain() == 2
        assert not OutboxMessage.objects.exists()

    def test_where_it_may_not_delete_it_publishes_nothing(self) -> None:
        for segment in SEGMENTS:
            run(f"ALTER TABLE {segment} REPLICA IDENTITY DEFAULT")
        put("a")
        broker = Kafka()
        relay = assemble_relay(broker, source="/tests")
        with pytest.raises(Exception, match="Replica identity must not contain"):
            relay.drain(threading.Event())
        assert broker.accepted == []
        for segment in SEGMENTS:
            run(f"ALTER TABLE {segment} REPLICA IDENTITY USING INDEX {segment}_identity")
        assert drain() == 1
