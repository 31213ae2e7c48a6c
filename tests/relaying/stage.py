"""A database, a broker, and the relays and writers between them."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from brokers import broker_from_url
from tests import processes
from tests.relaying.reader import Reader
from tests.relaying.relays import RelayProcess

TOPIC = "orders.commands"
PARTITIONS = 6
RELAY = (*processes.MANAGE, "run_outbox_relay")


class Stage:
    """Not yet with any process. `clean_up()` ends those that it has started.

    Args:
        database_url: on PostgreSQL, with all tables.
        broker_url: Kafka, with a prefix of its own for topics and groups.
    """

    def __init__(self, directory: Path, *, database_url: str, broker_url: str) -> None:
        self.directory = directory
        self.database_url = database_url
        self.broker_url = broker_url
        self.env = {
            "DATABASE_URL": database_url,
            "SAGAZ_BROKER_URL": broker_url,
            "KAFKA_PARTITIONS": str(PARTITIONS),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "PYTHONPATH": str(processes.ROOT),
        }
        self._relays: list[RelayProcess] = []

    def set_up(self) -> None:
        self.add_topic(TOPIC)

    def add_topic(self, name: str) -> None:
        broker_from_url(self.broker_url, partitions=PARTITIONS).ensure_topics([name])

    def relay(self, *arguments: str, command: tuple[str, ...] = RELAY, **env: str) -> RelayProcess:
        """Start one more."""
        name = f"relay-{len(self._relays)}"
        relay = RelayProcess(self.directory, name, *arguments, command=command, **self.env | env)
        self._relays.append(relay)
        return relay

    def writing(self, **options: object) -> AbstractContextManager["Writing"]:
        """Writers at work for their seconds; the end of the block waits for them."""
        return self._writing(options, stdin=subprocess.DEVNULL)

    def writing_meanwhile(self, **options: object) -> AbstractContextManager["Writing"]:
        """Writers at work for their seconds, and for as long as the block takes."""
        return self._writing(options, stdin=subprocess.PIPE)

    @contextmanager
    def _writing(self, options: Mapping[str, object], *, stdin: int) -> Iterator["Writing"]:
        committed = self.directory / "committed"
        named = [f"--{name}={value}" for name, value in options.items()]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.relaying.writers", committed, f"--topic={TOPIC}", *named],
            env=processes.environment(self.directory) | self.env,
            stdin=stdin,
        ) as process:
            writing = Writing(process, committed)
            try:
                yield writing
                if process.stdin is not None:
                    process.stdin.close()
                assert process.wait() == 0
            finally:
                process.kill()

    def reader(self) -> Reader:
        return Reader(self.broker_url, [TOPIC])

    def query(self, sql: str) -> list[Any]:
        """Look into its database, or change it, from outside."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def waiting(self) -> set[int]:
        """The ids in the outbox: whatever is in flight is among them."""
        return {id_ for (id_,) in self.query("SELECT id FROM outbox_message")}

    def manage(self, *arguments: str) -> str:
        done = processes.manage(self.directory, *arguments, **self.env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def logs(self) -> str:
        return "".join(relay.output for relay in self._relays)

    def clean_up(self) -> None:
        for relay in self._relays:
            relay.clean_up()


class Writing:
    def __init__(self, process: "subprocess.Popen[bytes]", committed: Path) -> None:
        self._process = process
        self._committed = committed

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def committed(self) -> list[int]:
        """The ids that were committed, once it is over."""
        return [*map(int, self._committed.read_text().split()[1:])]

    def slowest(self) -> float:
        """The seconds that a transaction took at most, once it is over."""
        return float(self._committed.read_text().split()[0])
