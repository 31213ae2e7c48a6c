"""A setting that cannot be used: one line that says so, and a non-zero exit."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import processes
from tests.processes import refusal


class Manage:
    """Runs manage.py in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def database_url(self) -> str:
        return processes.environment(self._directory)["DATABASE_URL"]

    def accepted(self, *arguments: str, **env: str) -> bool:
        return processes.manage(self._directory, *arguments, **env).returncode == 0

    def refused(self, *arguments: str, **env: str) -> str:
        """The one line with which a command refuses."""
        return refusal(processes.manage(self._directory, *arguments, **env))

    def all_refused(self, *commands: tuple[str, ...], **env: str) -> dict[tuple[str, ...], str]:
        """What each says when it refuses, run side by side: they wait a while for an answer."""
        with ThreadPoolExecutor() as pool:
            lines = pool.map(lambda command: self.refused(*command, **env), commands)
            return dict(zip(commands, lines, strict=True))


@pytest.fixture
def manage(tmp_path: Path) -> Manage:
    return Manage(tmp_path)


def test_serving_wants_a_secret_key(manage: Manage) -> None:
    assert "SECRET_KEY" in manage.refused("runserver", "--noreload", "127.0.0.1:0")


def test_other_commands_want_none(manage: Manage) -> None:
    assert manage.accepted("migrate")
    assert manage.accepted("check")


def test_the_journal_lives_nowhere_else(manage: Manage) -> None:
    line = manage.refused("check", SAGAZ_STORAGE_URL="redis://user:secret@elsewhere/0")

    assert "SAGAZ_STORAGE_URL" in line
    assert "could not commit together with a step" in line
    assert "secret" not in line


def test_the_journal_may_be_named_by_the_database(manage: Manage) -> None:
    assert manage.accepted("check", SAGAZ_STORAGE_URL="django://")
    assert manage.accepted("check", SAGAZ_STORAGE_URL=manage.database_url)


@pytest.mark.parametrize("url", ["", "db.sqlite3", "oracle://user:secret@host/name", "postgres"])
def test_an_unknown_database(manage: Manage, url: str) -> None:
    line = manage.refused("check", DATABASE_URL=url)

    assert "DATABASE_URL" in line
    assert "secret" not in line


def test_a_database_that_does_not_answer(manage: Manage) -> None:
    commands = (("migrate",), ("up", "--port", "1"), ("audit_orders",))
    url = "postgres://user:secret@127.0.0.1:1/orders"
    for command, line in manage.all_refused(*commands, DATABASE_URL=url).items():
        assert "127.0.0.1" in line, command
        assert "DATABASE_URL" in line, command
        assert "secret" not in line, command


@pytest.mark.parametrize("command", ["migrate", "up"])
def test_a_database_file_that_cannot_be_made(manage: Manage, command: str) -> None:
    assert "/none/" in manage.refused(command, DATABASE_URL="sqlite:////none/db.sqlite3")


def test_a_database_file_that_is_none(manage: Manage, tmp_path: Path) -> None:
    (tmp_path / "db.sqlite3").write_text("no database at all, but long enough to be read " * 100)

    assert "not a database" in manage.refused("migrate")


def test_a_database_without_tables(manage: Manage) -> None:
    assert "manage.py migrate" in manage.refused("audit_orders")


@pytest.mark.parametrize("command", ["run_outbox_relay", "run_saga_consumer"])
def test_memory_is_of_no_use_to_a_process_of_its_own(manage: Manage, command: str) -> None:
    line = manage.refused(command, SAGAZ_BROKER_URL="memory://")

    assert "memory://" in line
    assert "kafka://" in line


def test_several_consumers_on_sqlite(manage: Manage) -> None:
    line = manage.refused("run_saga_consumer", "--processes", "2")

    assert "SQLite" in line
    assert "leave --processes out" in line


@pytest.mark.parametrize("command", ["up", "run_outbox_relay", "run_saga_consumer"])
def test_an_unknown_broker(manage: Manage, command: str) -> None:
    line = manage.refused(command, SAGAZ_BROKER_URL="pigeon://user:secret@loft")

    assert "pigeon" in line
    assert "kafka://" in line
    assert "secret" not in line


def test_a_broker_that_does_not_answer(manage: Manage) -> None:
    commands = (("run_outbox_relay",), ("run_saga_consumer",))
    url = "kafka://127.0.0.1:1"
    for command, line in manage.all_refused(*commands, SAGAZ_BROKER_URL=url).items():
        assert "127.0.0.1:1" in line, command


def test_a_database_that_only_lives_in_memory(manage: Manage) -> None:
    assert "sqlite:///file" in manage.refused("check", DATABASE_URL="sqlite://:memory:")


def test_an_unknown_payment_gateway(manage: Manage) -> None:
    assert "PAYMENT_GATEWAY_URL" in manage.refused("up", PAYMENT_GATEWAY_URL="pigeon://loft")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OUTBOX_MAX_AGE", "soon"),
        ("SAGA_LEASE", ""),
        ("ORDER_MAX_AGE", "1h"),
        ("DEBUG", "maybe"),
        ("LOG_LEVEL", "LOUD"),
        ("WEB_CONCURRENCY", "two"),
        ("SAGA_LEASE", "0"),
        ("SAGA_MAX_TAKEOVERS", "-1"),
        ("SAGA_FIRST_BACKOFF", "-1"),
        ("MAX_WAITING_REQUESTS", "-1"),
        ("DATABASE_POOL_SIZE", "0"),
    ],
)
def test_a_value_that_cannot_be_read(manage: Manage, variable: str, value: str) -> None:
    url = "postgres://postgres@127.0.0.1:1/orders"
    assert variable in manage.refused("check", DATABASE_URL=url, **{variable: value})


@pytest.mark.parametrize(
    "url", ["db:5432", "mysql://user:secret@host/name", "postgres://a:b:c@/?x"]
)
def test_a_direct_url_that_cannot_be_read(manage: Manage, url: str) -> None:
    line = manage.refused("check", DATABASE_DIRECT_URL=url)

    assert "DATABASE_DIRECT_URL" in line
    assert "secret" not in line


def test_a_direct_url_in_any_of_the_schemes(manage: Manage) -> None:
    for scheme in ("postgres", "postgresql", "psql", "pgsql"):
        assert manage.accepted("check", DATABASE_DIRECT_URL=f"{scheme}://user@host:5432/name")


def test_transactions_want_librdkafka(manage: Manage) -> None:
    line = manage.refused(
        "run_outbox_relay",
        "--transactional",
        SAGAZ_BROKER_URL="kafka://127.0.0.1:1",
        SAGAZ_KAFKA_CLIENT="kafka-python",
    )

    assert "librdkafka" in line
