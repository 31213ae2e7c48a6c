"""A server that is away or does not let us in: one line says so, whichever command it is."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests import processes
from tests.ports import free_port

pytestmark = [pytest.mark.postgres, pytest.mark.kafka]

ON_THE_DATABASE = ("up", "run_outbox_relay", "run_saga_consumer", "audit_orders")
ON_THE_BROKER = ON_THE_DATABASE[:3]
PASSWORD = "not-to-be-seen"


@pytest.fixture
def refusals(
    tmp_path: Path,
    postgres_database_url: str,
    kafka_server_url: str,
    topic_name: Callable[[str], str],
) -> Callable[..., dict[str, str]]:
    """What each of these commands says when it refuses, all run side by side."""
    separator = "&" if "?" in kafka_server_url else "?"
    working = {
        "DATABASE_URL": postgres_database_url,
        "SAGAZ_BROKER_URL": f"{kafka_server_url}{separator}prefix={topic_name('')}",
        "SECRET_KEY": "only for tests",
    }

    def run(commands: tuple[str, ...], **broken: str) -> dict[str, str]:
        def refused(command: str) -> str:
            port = ("--port", str(free_port())) if command == "up" else ()
            done = processes.manage(tmp_path, command, *port, **working | broken)
            assert PASSWORD not in done.stdout
            return processes.refusal(done)

        with ThreadPoolExecutor() as pool:
            return dict(zip(commands, pool.map(refused, commands), strict=True))

    return run


def test_a_wrong_password(
    postgres_database_url: str, refusals: Callable[..., dict[str, str]]
) -> None:
    parts = urlsplit(postgres_database_url)
    address = f"{parts.hostname}:{parts.port}"
    url = parts._replace(netloc=f"{parts.username}:{PASSWORD}@{address}").geturl()
    if not is_refused(url):
        url = parts._replace(netloc=f"nobody-like-that:{PASSWORD}@{address}").geturl()
    for command, line in refusals(ON_THE_DATABASE, DATABASE_URL=url).items():
        assert f"at {address} does not let us in: FATAL: " in line, command
        assert "authentication failed" in line or "does not exist" in line, command
        assert line.endswith("Correct DATABASE_URL."), command
        assert PASSWORD not in line, command


def is_refused(url: str) -> bool:
    """Not by a server that trusts whoever comes from this machine."""
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return True
    return False


def test_an_unknown_database(
    postgres_database_url: str, refusals: Callable[..., dict[str, str]]
) -> None:
    url = urlsplit(postgres_database_url)._replace(path="/nowhere").geturl()
    for command, line in refusals(ON_THE_DATABASE, DATABASE_URL=url).items():
        assert 'database "nowhere" does not exist' in line, command


def test_nobody_listens_for_postgresql(refusals: Callable[..., dict[str, str]]) -> None:
    port = free_port()
    url = f"postgres://orders:{PASSWORD}@127.0.0.1:{port}/orders"
    for command, line in refusals(ON_THE_DATABASE, DATABASE_URL=url).items():
        beginning = f"error: the database orders at 127.0.0.1:{port} does not answer: "
        assert line.startswith(beginning + "Connection refused"), command
        assert PASSWORD not in line, command


def test_nobody_listens_for_kafka(refusals: Callable[..., dict[str, str]]) -> None:
    port = free_port()
    url = f"kafka://orders:{PASSWORD}@127.0.0.1:{port}?security_protocol=SASL_PLAINTEXT"
    for command, line in refusals(ON_THE_BROKER, SAGAZ_BROKER_URL=url).items():
        assert line.startswith(f"error: no Kafka broker answers at 127.0.0.1:{port}"), command
        assert PASSWORD not in line, command


def test_a_database_without_tables(refusals: Callable[..., dict[str, str]]) -> None:
    [line] = refusals(("audit_orders",)).values()
    assert line.endswith("Run manage.py migrate.")
