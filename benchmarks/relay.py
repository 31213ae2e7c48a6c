r"""Measure messages a second from PostgreSQL to Kafka: one relay, a bare loop, and peers.

    DATABASE_URL=postgres://… SAGAZ_BROKER_URL=kafka://… \
        uv run --python 3.13 --extra librdkafka --group peers python benchmarks/relay.py

Each case fills an outbox and drains it in a process of its own, acks=all, 300-byte payloads, 10,000
keys. Ours and the bare loop of the same client run in turns; the table shows medians, and of the
ratio the median of the rounds. CPU is the relay process's. The WAL is the server's, so others who
write to it meanwhile are in it. Nothing is counted that Kafka has not got: the benchmark asks it.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # this folder's relay.py must not stand before the package

import argparse
import json
import os
import statistics
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import LiteralString, cast

import psycopg
from confluent_kafka import Consumer, TopicPartition

from benchmarks.measuring import own_database
from benchmarks.outbox_filling import BARE, OURS, fill
from brokers import broker_from_url
from brokers.kafka.clients import KAFKA_PYTHON, LIBRDKAFKA
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python.server import admin_client
from brokers.librdkafka.connecting import connection_config

PATIENCE = 10.0
PEERS = {  # each with what it needs
    "sagaz": ("aiokafka", "asyncpg"),
    "faststream-outbox": ("faststream_outbox", "aiokafka"),
    "django-reliable-outbox": ("reliable_outbox", "confluent_kafka"),
}


@dataclass(slots=True)
class Result:
    """Hold the results of all rounds.

    Attributes:
        rates: messages a second.
        cpu: microseconds per message.
        wal: bytes per message.
        statements: per message.
    """

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    wal: list[float] = field(default_factory=list)
    statements: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bench:
    """Measure on one database, one Kafka and one topic."""

    database: str
    broker: KafkaBroker
    broker_url: str
    topic: str
    batch_size: int

    def measure(
        self, case: str, result: Result, *, count: int, client: str, rows: LiteralString = ""
    ) -> None:
        """Fill, drain, and check that Kafka has all messages. A peer fills its own table."""
        if rows:
            fill(self.database, rows, topic=self.topic, count=count)
        wal, arrived = self._wal(), self._arrived()
        cost = self._drain(case, count=count, client=client)
        wal, arrived = self._wal() - wal, self._arrived() - arrived
        if arrived < count:
            raise SystemExit(f"{case}: Kafka has {arrived} of {count} messages")
        result.rates.append(cost["messages"] / cost["seconds"])
        result.cpu.append(cost["cpu"] * 1e6 / cost["messages"])
        result.wal.append(wal / cost["messages"])
        result.statements.append(cost["statements"] / cost["messages"])

    def _drain(self, case: str, *, count: int, client: str) -> dict[str, float]:
        command = [sys.executable, str(ROOT / "benchmarks" / "draining.py"), case]
        command += ["--database", self.database, "--broker", self.broker_url, "--topic", self.topic]
        command += ["--client", client, "--batch-size", str(self.batch_size)]
        ran = subprocess.run(
            [*command, "--count", str(count)], stdout=subprocess.PIPE, check=True, text=True
        )
        return cast("dict[str, float]", json.loads(ran.stdout.splitlines()[-1]))

    def _wal(self) -> int:
        with psycopg.connect(self.database) as connection:
            row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
        assert row is not None  # noqa: S101
        return int(row[0])

    def _arrived(self) -> int:
        """Count the messages in Kafka."""
        consumer = Consumer({**connection_config(self.broker.address), "group.id": self.topic})
        with closing(consumer):
            partitions = consumer.list_topics(self.topic, PATIENCE).topics[self.topic].partitions
            places = [TopicPartition(self.topic, number) for number in partitions]
            marks = [consumer.get_watermark_offsets(place, PATIENCE) for place in places]
        return sum(end for _, end in marks)


@contextmanager
def databases(*suffixes: str) -> Iterator[list[str]]:
    """Make an empty database per suffix, beside the one in DATABASE_URL; yield their URLs."""
    url = os.environ.get("DATABASE_URL", "")
    with ExitStack() as stack:
        yield [stack.enter_context(own_database(url, suffix=suffix)) for suffix in suffixes]


@contextmanager
def kafka() -> Iterator[tuple[KafkaBroker, str, str]]:
    """Make a topic for the block; yield the broker in SAGAZ_BROKER_URL, its URL, and the topic."""
    url = os.environ.get("SAGAZ_BROKER_URL", "")
    broker = broker_from_url(url, client=KAFKA_PYTHON) if url else None
    if not isinstance(broker, KafkaBroker):
        raise SystemExit("set SAGAZ_BROKER_URL=kafka://host:port")
    topic = f"bench-{uuid.uuid4().hex[:8]}.events"
    broker.ensure_topics([topic])
    try:
        yield broker, url, topic
    finally:
        with admin_client(broker.address, timeout=10) as admin:
            admin.delete_topics([topic])


def main() -> None:
    """Measure ours, the bare loops and the peers, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=150_000, help="messages, with librdkafka")
    parser.add_argument("--slow-count", type=int, default=30_000, help="with kafka-python")
    parser.add_argument("--peer-count", type=int, default=3_000, help="of each peer; 0: no peer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=2000)
    parser.add_argument("--client", choices=[LIBRDKAFKA, KAFKA_PYTHON], help="only this one")
    arguments = parser.parse_args()
    peers = PEERS if arguments.peer_count else ()
    with (
        databases("", *peers) as urls,
        kafka() as (broker, url, topic),
    ):
        migrate(urls[0])
        bench, *others = [
            Bench(database, broker, url, topic, arguments.batch_size) for database in urls
        ]
        best = 0.0
        print(_HEADING)
        counts = {LIBRDKAFKA: arguments.count, KAFKA_PYTHON: arguments.slow_count}
        for client in [arguments.client] if arguments.client else counts:
            ours = _in_turns(bench, client, count=counts[client], rounds=arguments.rounds)
            best = max(best, ours)
        for name, each in zip(peers, others, strict=True):
            _peer(each, name, best, count=arguments.peer_count)


def _in_turns(bench: Bench, client: str, *, count: int, rounds: int) -> float:
    """Measure the relay and the bare loop in turns; return the relay's rate."""
    bare, ours = Result(), Result()
    turns: list[Callable[[], None]] = [
        lambda: bench.measure("bare", bare, count=count, client=client, rows=BARE),
        lambda: bench.measure("ours", ours, count=count, client=client, rows=OURS),
    ]
    for number in range(rounds):
        for turn in reversed(turns) if number % 2 else turns:
            turn()
    ratios = [a / b for a, b in zip(ours.rates, bare.rates, strict=True)]
    _print(f"bare loop, {client}", bare, "")
    _print(f"relay, {client}", ours, f"{statistics.median(ratios):.2f} of the bare loop")
    return statistics.median(ours.rates)


def _peer(bench: Bench, name: str, ours: float, *, count: int) -> None:
    if not all(map(find_spec, PEERS[name])):
        print(f"{name:28} is not installed: Python 3.12 or later, --group peers")
        return
    result = Result()
    try:
        bench.measure(name, result, count=count, client="")
    except subprocess.CalledProcessError:
        print(f"{name:28} did not run: its error is above")
    else:
        _print(name, result, f"the relay: {ours / result.rates[0]:.0f} times")


_HEADING = (
    f"{'':28}{'messages/s':>11}{'min':>8}{'max':>8}{'CPU us':>8}{'WAL bytes':>11}"
    f"{'statements/1,000':>18}"
)


def _print(title: str, result: Result, remark: str) -> None:
    median = statistics.median
    print(
        f"{title:28}{median(result.rates):11,.0f}{min(result.rates):8,.0f}{max(result.rates):8,.0f}"
        f"{median(result.cpu):8.1f}{median(result.wal):11,.0f}"
        f"{1000 * median(result.statements):18,.1f}   {remark}",
        flush=True,
    )


def migrate(database: str) -> None:
    """Create the tables."""
    environment = {**os.environ, "DATABASE_URL": database}
    environment.setdefault("SECRET_KEY", "of-the-benchmark")
    command = [sys.executable, str(ROOT / "manage.py"), "migrate", "-v0"]
    subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
