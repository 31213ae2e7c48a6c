"""Messages with one key reach Kafka in the order in which their transactions committed.

The witness of that order is a table of the test's own. A constraint trigger writes to it while a
transaction commits, under a lock that is held until the commit is made: of two transactions the one
that commits first is the first in it, however they overlapped before.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from brokers import Record, broker_from_url
from tests import processes
from tests.integration.writers import KEY, WRITERS
from tests.unit.waiting import until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

ROUNDS = 50
TOPIC = "orders.commands"
WITNESS = """
    CREATE TABLE witness (position serial PRIMARY KEY, payload bytea NOT NULL);
    CREATE FUNCTION bear_witness() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(1);
        INSERT INTO witness (payload) VALUES (NEW.payload);
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER witness AFTER INSERT ON outbox_message
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION bear_witness();
"""


def test_four_writers_on_one_key(
    tmp_path: Path,
    migrated_database_url: str,
    kafka_server_url: str,
    topic_name: Callable[[str], str],
) -> None:
    separator = "&" if "?" in kafka_server_url else "?"
    broker_url = f"{kafka_server_url}{separator}prefix={topic_name('')}"
    env = {"DATABASE_URL": migrated_database_url, "SAGAZ_BROKER_URL": broker_url}
    with psycopg.connect(migrated_database_url) as connection:
        connection.execute(WITNESS.encode())
    broker_from_url(broker_url, partitions=3).ensure_topics([TOPIC])

    with (
        running(processes.MANAGE[1], "run_outbox_relay", env=env, directory=tmp_path),
        running("-m", "tests.integration.writers", str(ROUNDS), env=env, directory=tmp_path) as w,
    ):
        records = received(broker_url, count=WRITERS * ROUNDS)
        assert w.wait(30) == 0

    with psycopg.connect(migrated_database_url) as connection:
        rows = connection.execute("SELECT payload FROM witness ORDER BY position").fetchall()
    committed = [json.loads(payload) for (payload,) in rows]
    assert len(committed) == WRITERS * ROUNDS
    assert len({writer["writer"] for writer in committed[:20]}) == WRITERS, "they did not overlap"
    assert {record.key for record in records} == {KEY.encode()}
    assert [json.loads(record.value or b"") for record in records] == committed
    sequences = [int(dict(record.headers)["ce_sequence"]) for record in records]
    assert sequences == sorted(set(sequences))


@contextmanager
def running(
    *arguments: str, env: dict[str, str], directory: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=processes.environment(directory)
        | env
        | {"DJANGO_SETTINGS_MODULE": "config.settings", "PYTHONPATH": str(processes.ROOT)},
        cwd=directory,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def received(broker_url: str, *, count: int) -> list[Record]:
    """The first `count` records of the topic, and what comes within a moment after them."""
    records: list[Record] = []

    def has_all() -> bool:
        records.extend(subscription.receive(timeout=0.2, limit=500))
        return len(records) >= count

    with closing(broker_from_url(broker_url).subscribe([TOPIC], group="test")) as subscription:
        until(has_all, timeout=60)
        has_all()
    return records
