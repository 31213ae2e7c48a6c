"""The relay under load, as a process of its own: stopped, cut off, behind a pooler."""

import re
from urllib.parse import urlsplit

import psycopg
import pytest
import requests

from tests.e2e.pgbouncer import PgBouncer
from tests.e2e.service import SLOWEST, until
from tests.integration.tcp_proxy import TcpProxy
from tests.ports import free_port
from tests.relaying.reader import Reader
from tests.relaying.stage import Stage, Writing

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

LOAD = {"rate": 400, "writers": 3}
STOPPED_WITHIN = 5.0 * SLOWEST  # seconds


@pytest.mark.parametrize(
    "client", [pytest.param("kafka-python", marks=pytest.mark.soak), "librdkafka"]
)
def test_stopped_it_has_sent_nothing_twice(stage: Stage, client: str) -> None:
    with stage.reader().running() as reader:
        port = free_port()
        relay = stage.relay("--metrics-port", str(port), SAGAZ_KAFKA_CLIENT=client)
        relay.await_ready()
        with stage.writing_meanwhile(seconds=6, **LOAD) as writing:
            until(lambda: len(reader.seen), reaches=300, timeout=60)
            until(lambda: metric(port, "outbox_relay_published_total"), reaches=300, timeout=10)
            status, took = relay.terminate()
            assert (status, took < STOPPED_WITHIN) == (0, True), relay.output
            stage.relay(SAGAZ_KAFKA_CLIENT=client)
        assert_all_in_order(stage, writing, reader)
    assert not reader.repeated


@pytest.mark.parametrize("way", ["cut", pytest.param("stall", marks=pytest.mark.soak)])
def test_cut_off_from_postgresql_it_goes_on_by_itself(stage: Stage, way: str) -> None:
    url = urlsplit(stage.database_url)
    with (
        TcpProxy((url.hostname or "", url.port or 5432)).running() as proxy,
        stage.reader().running() as reader,
    ):
        relay = stage.relay(DATABASE_URL=at(stage.database_url, proxy.port))
        with stage.writing_meanwhile(seconds=6, **LOAD) as writing:
            until(lambda: len(reader.seen), reaches=200, timeout=60)
            getattr(proxy, way)()
            waiting = len(stage.waiting())
            until(lambda: len(stage.waiting()) > waiting + 200, timeout=30)
            if way == "cut":
                until(lambda: "the database does not answer, trying on" in relay.output, timeout=30)
            proxy.restore()
        assert_all_in_order(stage, writing, reader)
        assert relay.is_running


def test_one_connection_is_enough(stage: Stage) -> None:
    """It cannot delete beside its reads then."""
    with stage.reader().running() as reader:
        with stage.writing(seconds=1, **LOAD) as writing:
            pass
        relay = stage.relay("--drain", DATABASE_POOL_SIZE="1", OUTBOX_WAKE_UP="off")
        until(lambda: not relay.is_running, timeout=60)
        assert_all_in_order(stage, writing, reader)
    assert not reader.repeated
    assert f"published {len(writing.committed())} message(s)" in relay.output


def test_behind_a_pooler_that_shares_connections(stage: Stage, pgbouncer: PgBouncer) -> None:
    """Two relays on fewer connections of the server than they have of the pooler: each transaction
    may have another one."""
    pooled = at(stage.database_url, pgbouncer.port)
    with stage.reader().running() as reader:
        relays = [stage.relay(DATABASE_URL=pooled, OUTBOX_WAKE_UP="off") for _ in range(2)]
        with stage.writing_meanwhile(seconds=6, **LOAD) as writing:
            until(lambda: len(reader.seen), reaches=200, timeout=60)
            until(lambda: lanes_of_each(stage) == [16, 16], timeout=30)
        assert_all_in_order(stage, writing, reader)
        assert all(relay.is_running for relay in relays)
        assert settings_left_behind(pooled, pgbouncer) == {"on"}
        assert relays[0].terminate()[0] == 0
        until(lambda: lanes_of_each(stage) == [32], timeout=10)


def metric(port: int, name: str) -> int:
    """What the process tells Prometheus."""
    metrics = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
    [value] = re.findall(rf"^{name} (\S+)$", metrics, re.MULTILINE)
    return int(float(value))


def at(url: str, port: int) -> str:
    """The same database by way of another port on this machine."""
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{credentials}@127.0.0.1:{port}").geturl()


def lanes_of_each(stage: Stage) -> list[int]:
    rows = stage.query("SELECT count(*) FROM outbox_lane WHERE owner <> '' GROUP BY owner")
    return [count for (count,) in rows]


def settings_left_behind(url: str, pgbouncer: PgBouncer) -> set[str]:
    """What other clients of the pooler find on its connections, all of them at once."""
    clients = [psycopg.connect(url, prepare_threshold=None) for _ in range(pgbouncer.pool_size)]
    found = set()
    for client in clients:
        for name in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
            row = client.execute(f"SHOW {name}".encode()).fetchone()
            assert row is not None
            found.add(row[0])
    for client in clients:
        client.close()
    return found


def assert_all_in_order(stage: Stage, writing: Writing, reader: Reader) -> None:
    committed = writing.committed()
    until(lambda: not stage.waiting(), timeout=60)
    until(lambda: not reader.lost(committed), timeout=30)
    assert set(committed) == reader.seen
    assert reader.out_of_order == []
    assert stage.query("SELECT count(*) FROM outbox_parked") == [(0,)]
    assert "Traceback" not in stage.logs()
