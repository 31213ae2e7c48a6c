"""Transactions held open for minutes: what is deleted cannot be vacuumed."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean, median

import psycopg
import pytest

from tests.e2e.service import until
from tests.relaying.reader import Reader
from tests.relaying.stage import Stage, Writing
from tests.relaying.timed_relay import cycles
from tests.soak.scale import seconds

pytestmark = [
    pytest.mark.soak,
    pytest.mark.postgres,
    pytest.mark.kafka,
    pytest.mark.timeout(1500),
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

HELD = seconds(300, least=60)
WARM_UP = 10.0
WINDOW = min(60.0, HELD / 3)  # the segments have all had their turn once in a minute
RECOVERY = seconds(120, least=60)
RATE = 2_000  # messages a second
LOAD = {"rate": RATE, "together": 100, "writers": 2, "keys": 1_000}
MAY_GROW = 1.5

UNRELATED = "SELECT count(*) FROM orders_order"
HELD_KEY = "held"
ENQUEUED = """
    INSERT INTO outbox_message (message_id, topic, key, key_hash, type, payload, headers,
        correlation_id, traceparent, created_at)
    VALUES (gen_random_uuid(), 'orders.commands', 'held', 1, 'x', '1', '{}', '', '', now())
"""
READ = "SELECT count(*) FROM outbox_message"


class Run:
    """A relay at work under load, beside a transaction held open."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.timings = stage.directory / "cycles"
        self.began = self.ended = 0.0
        self.sizes: list[float] = []
        self.yardstick: list[tuple[float, float]] = []

    def start(self) -> None:
        command = (sys.executable, "-m", "tests.relaying.timed_relay", str(self.timings))
        self.stage.relay(command=command).await_ready()

    @contextmanager
    def holding(self, sql: str) -> Iterator[None]:
        """Within the block, and HELD seconds before its beginning, a transaction is open."""
        with psycopg.connect(self.stage.database_url) as other:
            other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            other.execute(sql.encode())
            self.began = time.monotonic()
            while time.monotonic() < self.began + HELD:
                self.sizes.append(self.size())
                self.measure_machine(other)
                time.sleep(1.0)
            self.ended = time.monotonic()
            yield

    def measure_machine(self, other: "psycopg.Connection[tuple[object, ...]]") -> None:
        """How long PostgreSQL takes over something that is always the same."""
        began = time.monotonic()
        other.execute("SELECT count(*) FROM generate_series(1, 50000)")
        ended = time.monotonic()
        self.yardstick.append((ended, ended - began))

    def size(self) -> float:
        """Of the outbox, in MiB."""
        [(size,)] = self.stage.query(
            "SELECT sum(pg_relation_size(inhrelid)) FROM pg_inherits"
            " WHERE inhparent = 'outbox_message'::regclass"
        )
        return float(size) / 2**20

    def slowdown(self, *, since: float) -> float:
        """How much slower the machine was in a window than in the first one."""
        first, then = (
            median(took for ended, took in self.yardstick if start <= ended < start + WINDOW)
            for start in (self.began, since)
        )
        return then / first

    def cycles(self, *, since: float) -> float:
        """The mean of a window's cycles, in milliseconds."""
        return 1000 * mean(cycles(self.timings, since=since, until=since + WINDOW))


def check_delivery(writing: Writing, reader: Reader, run: Run) -> None:
    committed = writing.committed()
    until(lambda: not run.stage.waiting(), timeout=300)
    until(lambda: not reader.lost(committed), timeout=30)
    assert reader.out_of_order == []
    assert "Traceback" not in run.stage.logs()
    waits = [seconds for _, key, seconds in reader.latencies if key != HELD_KEY]
    print(
        f"{len(committed)} messages, {len(committed) / (WARM_UP + HELD):.0f} a second; none lost,"
        f" none out of order; slowest transaction {writing.slowest():.2f} s;"
        f" median and longest wait {median(waits):.3f} and {max(waits):.1f} s;"
        f" the outbox took up to {max(run.sizes):.0f} MiB"
    )


@pytest.mark.parametrize(
    "sql", [UNRELATED, ENQUEUED], ids=["an unrelated snapshot", "one enqueued"]
)
def test_the_relay_keeps_its_pace(stage: Stage, sql: str, request: pytest.FixtureRequest) -> None:
    run = Run(stage)
    with stage.reader().running() as reader:
        run.start()
        with stage.writing(seconds=WARM_UP + HELD, **LOAD) as writing:
            time.sleep(WARM_UP)
            with run.holding(sql):
                first, last = run.cycles(since=run.began), run.cycles(since=run.ended - WINDOW)
                slowdown = run.slowdown(since=run.ended - WINDOW)
        print(
            f"\n{request.node.callspec.id}: a cycle takes {first:.1f} ms in the first"
            f" {WINDOW:.0f} s, {last:.1f} ms in the last (x {last / first:.2f}),"
            f" when the machine itself was x {slowdown:.2f} slower"
        )
        check_delivery(writing, reader, run)
    assert last < MAY_GROW * first * max(1.0, slowdown)


def test_one_that_has_read_the_outbox_blocks_nothing(stage: Stage) -> None:
    run = Run(stage)
    with stage.reader().running() as reader:
        run.start()
        with stage.writing(seconds=WARM_UP + HELD + RECOVERY, **LOAD) as writing:
            time.sleep(WARM_UP)
            with run.holding(READ):
                first, last = run.cycles(since=run.began), run.cycles(since=run.ended - WINDOW)
            until(lambda: run.size() < max(run.sizes) / 4, timeout=RECOVERY)
            emptied = time.monotonic() - run.ended
        after = run.cycles(since=time.monotonic() - WINDOW)
        print(
            f"\nthe outbox read: a cycle takes {first:.1f} ms in the first {WINDOW:.0f} s,"
            f" {last:.1f} ms in the last, {after:.1f} ms afterwards;"
            f" emptied {emptied:.0f} s after the transaction's end"
        )
        check_delivery(writing, reader, run)
    assert "cannot be emptied: process" in stage.logs()
    assert after < MAY_GROW * first
