"""Measure durable sagas a second, beside bare sagaz, DBOS Transact and plain transactions.

    DATABASE_URL=postgres://… uv run --group peers python benchmarks/sagas.py

All run in this process, in turns, on one PostgreSQL server, in two databases that are made for it
and dropped: `<name>_bench` and `<name>_bench_dbos`. Sagas are in the table before the clock starts;
it stops when the last one has ended. Each has three steps, one after the other. Commits are the
server's count, so a transaction that only read counts too; statements leave out BEGIN and COMMIT.
The CPU time is this process's, without the server's.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # this folder's sagas.py must not stand before the package

import argparse
import os
import statistics
import uuid
from importlib.util import find_spec

import django
from django.core.management import call_command

from benchmarks.measuring import Case, Observer, Result, measure, own_database

GOALS = [
    # case, compared with case, at least
    (2, 1, 0.4),
    (2, 3, 10.0),
    (5, 4, 0.6),
    (5, 3, 5.0),
]
WARM_UP = 100


def main() -> None:
    """Measure all cases in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sagas", type=int, default=1500, help="how many of each in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=20, help="sagas at a time")
    parser.add_argument("--threads", type=int, default=4, help="of the transactions alone")
    arguments = parser.parse_args()
    if find_spec("dbos") is None:
        raise SystemExit("dbos is not installed: uv run --group peers python benchmarks/sagas.py")
    url = os.environ.get("DATABASE_URL", "")
    with own_database(url) as ours, own_database(url, suffix="_dbos") as theirs:
        _set_up_django(ours)
        with Observer(ours) as observer:
            cases = _cases(
                observer, theirs, concurrency=arguments.concurrency, threads=arguments.threads
            )
            results = _rounds(cases, observer, count=arguments.sagas, rounds=arguments.rounds)
    _print(cases, results)


def _cases(observer: Observer, dbos_url: str, *, concurrency: int, threads: int) -> list[Case]:
    """Make the cases, in the order of their numbers in the table."""
    from benchmarks import sagas_ours
    from benchmarks.sagas_dbos import Workflows

    sagas_ours.create_table()
    return [
        sagas_ours.Bare(concurrency=concurrency),
        sagas_ours.Durable(sagas_ours.Calls, observer, concurrency=concurrency),
        Workflows(dbos_url),
        sagas_ours.Transactions(threads=threads),
        sagas_ours.Durable(sagas_ours.Writes, observer, concurrency=concurrency),
    ]


def _rounds(
    cases: list[Case], observer: Observer, *, count: int, rounds: int
) -> list[list[Result]]:
    """Run all cases in turns; return each case's results."""
    results: list[list[Result]] = [[] for _ in cases]
    for case in cases:
        measure(case, WARM_UP, observer)
    for turn in range(rounds):
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
        numbered = list(enumerate(cases))
        for number, case in reversed(numbered) if turn % 2 else numbered:
            results[number].append(measure(case, count, observer))
    return results


def _print(cases: list[Case], results: list[list[Result]]) -> None:
    print(f"{'':46}{'sagas/s':>8}{'min':>7}{'max':>7}{'commits':>9}{'statements':>12}{'CPU ms':>8}")
    for number, (case, found) in enumerate(zip(cases, results, strict=True), 1):
        rates = [result.rate for result in found]
        print(
            f"{f'{number} {case.title}':46}{statistics.median(rates):8.0f}"
            f"{min(rates):7.0f}{max(rates):7.0f}"
            f"{statistics.median(result.commits for result in found):9.2f}"
            f"{statistics.median(result.statements for result in found):12.2f}"
            f"{statistics.median(result.cpu_ms for result in found):8.2f}"
        )
    print("\nratio, median of rounds")
    for ours, other, goal in GOALS:
        pairs = zip(results[ours - 1], results[other - 1], strict=True)
        ratio = statistics.median(a.rate / b.rate for a, b in pairs)
        print(f"  ({ours})/({other}) {ratio:7.2f}   goal {goal:g}")


def _set_up_django(url: str) -> None:
    os.environ["DATABASE_URL"] = url
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    os.environ["LOG_LEVEL"] = "WARNING"
    os.environ.setdefault("SECRET_KEY", uuid.uuid4().hex)
    django.setup()
    call_command("migrate", verbosity=0)


if __name__ == "__main__":
    main()
