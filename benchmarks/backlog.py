r"""Measure whether a long backlog, or a transaction held open, slows the relay down.

    DATABASE_URL=postgres://… SAGAZ_BROKER_URL=kafka://… \
        uv run --extra librdkafka python benchmarks/backlog.py --sizes 100000 1000000 10000000

For each size a database is made and filled; 10,000,000 messages take 8 GB. The messages are drained
in turns of `--slice`, and as many new ones are written before each turn, so the size stays. With
`--held-open` a transaction with an old snapshot keeps deleted rows from being cleaned up, from
before the first turn until the end of the last.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg

from benchmarks.outbox_filling import OURS, fill
from benchmarks.relay import Bench, Result, databases, kafka, migrate
from brokers.kafka.clients import CLIENTS, LIBRDKAFKA


def main() -> None:
    """Fill the databases, drain them in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--slice", type=int, default=100_000, help="messages drained in a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=2000)
    parser.add_argument("--client", choices=CLIENTS, default=LIBRDKAFKA)
    parser.add_argument("--held-open", action="store_true")
    arguments = parser.parse_args()
    suffixes = [f"_{size}" for size in arguments.sizes]
    with (
        databases(*suffixes) as urls,
        kafka() as (broker, url, topic),
    ):
        benches = [Bench(each, broker, url, topic, arguments.batch_size) for each in urls]
        for bench, size in zip(benches, arguments.sizes, strict=True):
            migrate(bench.database)
            fill(bench.database, OURS, topic=topic, count=size - arguments.slice)
        results = _drain(benches, arguments)
    _print(arguments.sizes, results)


def _drain(benches: list[Bench], arguments: argparse.Namespace) -> list[Result]:
    """Drain a slice of each backlog per round."""
    results = [Result() for _ in benches]
    with ExitStack() as stack:
        if arguments.held_open:
            for bench in benches:
                stack.enter_context(_snapshot(bench.database))
        for _ in range(arguments.rounds):
            for bench, result in zip(benches, results, strict=True):
                # Without vacuum: a drain of the whole backlog would not wait for a vacuum either.
                fill(bench.database, OURS, topic=bench.topic, count=arguments.slice, vacuum=False)
                bench.measure("ours", result, count=arguments.slice, client=arguments.client)
    return results


@contextmanager
def _snapshot(url: str) -> Iterator[None]:
    """Hold a transaction that sees the database as it is now."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")
        yield


def _print(sizes: list[int], results: list[Result]) -> None:
    print(f"{'backlog':>12}{'messages/s':>12}{'min':>8}{'max':>8}{'CPU us':>8}{'ratio':>8}")
    for size, result in zip(sizes, results, strict=True):
        ratios = [a / b for a, b in zip(result.rates, results[0].rates, strict=True)]
        print(
            f"{size:12,}{statistics.median(result.rates):12,.0f}"
            f"{min(result.rates):8,.0f}{max(result.rates):8,.0f}"
            f"{statistics.median(result.cpu):8.1f}{statistics.median(ratios):8.2f}"
        )


if __name__ == "__main__":
    main()
