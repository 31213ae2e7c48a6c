"""Print what `benchmarks/orders.py` has measured."""

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from benchmarks.measuring import Observer
from benchmarks.orders_cases import TRANSACTIONS, Result, Stages, figures
from benchmarks.orders_stages import COMMIT_TO_END, percentile
from benchmarks.wire_counting import Counts

Results = dict[tuple[str, int], list[Result]]
"""The rounds of each case, with each number of products."""

_CPU = ("web", "relay", "consumer", "PostgreSQL", "Kafka", "load")
_SETTINGS = ("WEB_", "SAGA_", "SAGAZ_KAFKA", "OUTBOX_", "KAFKA_", "DATABASE_POOL", "PAYMENT_")


def print_settings(arguments: Mapping[str, object], observer: Observer) -> None:
    """Print what was run, and where."""
    given = [f"{name} {_text(value)}" for name, value in arguments.items()]
    machine = [
        f"{os.cpu_count()} cores",
        f"Python {platform.python_version()}",
        f"psycopg {version('psycopg')}",
        f"PostgreSQL {observer.ask('SHOW server_version')}",
        f"fsync {observer.ask('SHOW fsync')}",
        f"synchronous_commit {observer.ask('SHOW synchronous_commit')}",
    ]
    names = sorted(name for name in os.environ if name.startswith(_SETTINGS))
    settings = [f"{name}={os.environ[name]}" for name in names] or ["defaults"]
    print(
        f"{', '.join(given)}\n{', '.join(machine)}\nthe service's settings: {', '.join(settings)}"
    )


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def print_work(results: Results) -> None:
    """Print orders a second, and the database's work for each order."""
    columns = ("orders/s", "min", "max", "commits", "inserted", "updated", "HOT", "deleted")
    _print_heading("closed loop, work for one order", columns)
    for (title, products), rounds in results.items():
        rates = [result.rate for result in rounds]
        work = zip(*(figures(result.work) for result in rounds), strict=True)
        row = [statistics.median(rates), min(rates), max(rates), *map(statistics.median, work)]
        _print_row(_name(title, products), row)


def print_cpu(results: Results) -> None:
    """Print the CPU time of each process for an order."""
    _print_heading("closed loop, CPU ms for one order", _CPU)
    for (title, products), rounds in results.items():
        found = [[result.cpu[name] for result in rounds if name in result.cpu] for name in _CPU]
        row = [statistics.median(each) if each else None for each in found]
        _print_row(_name(title, products), row)


def print_statements(title: str, counts: Mapping[str, Counts], *, orders: int) -> None:
    """Print what each part sends to PostgreSQL for an order."""
    _print_heading(f"{title}, for one order", ("statements", "round trips", "commits"))
    for part, found in [*counts.items(), ("all", sum(counts.values(), start=Counts()))]:
        row = [found.statements, found.round_trips, found.transactions]
        _print_row(part, [each / orders for each in row])


def print_stages(title: str, stages: Stages) -> None:
    """Print how long each stage took."""
    _print_heading(f"{title}, milliseconds", ("p50", "p95", "p99"))
    for stage, values in stages.items():
        _print_row(stage, [percentile(values, share) for share in (0.5, 0.95, 0.99)])


def _print_heading(title: str, columns: Sequence[str]) -> None:
    print(f"\n{title:56}{''.join(f'{column:>12}' for column in columns)}")


def _print_row(title: str, row: Sequence[float | None]) -> None:
    cells = ("?" if figure is None else f"{figure:.2f}" for figure in row)
    print(f"  {title:54}{''.join(f'{cell:>12}' for cell in cells)}", flush=True)


def print_ratios(
    results: Results, latencies: Mapping[str, Stages], services: Sequence[str], floor: str
) -> None:
    """Print each service beside the other cases, and one product beside many.

    Args:
        results: of the closed loop.
        latencies: of each service, at a quarter of its maximum.
        services: titles of the services; the first is compared with the others.
        floor: title of one thread's writes by hand.
    """
    print("\nratios, median of rounds")
    for title, products in results:
        compared = services[:1] if title in services else services
        for service in compared:
            if title not in (service, floor):
                _print_ratio(results, (service, products), (title, products))
    few, most = (pick(products for _, products in results) for pick in (min, max))
    if few != most:
        for title in dict.fromkeys(title for title, _ in results):
            _print_ratio(results, (title, few), (title, most))
    alone = percentile(results[floor, most][-1].stages[TRANSACTIONS], 0.5)
    for service, stages in latencies.items():
        _print_latency(service, stages[COMMIT_TO_END], alone)


def _print_latency(service: str, milliseconds: Sequence[float], alone: float) -> None:
    """Print an order's time as multiples of the p50 of its transactions alone."""
    p50, p99 = (percentile(milliseconds, share) for share in (0.5, 0.99))
    title = f"{service} at a quarter of its maximum"
    print(f"  {f'{title}, p50 / transactions alone ({alone:.2f} ms)':80}{p50 / alone:8.2f}")
    print(f"  {f'{title}, p99 / p50':80}{p99 / p50:8.2f}")


def _print_ratio(results: Results, ours: tuple[str, int], other: tuple[str, int]) -> None:
    pairs = zip(results[ours], results[other], strict=True)
    ratio = statistics.median(a.rate / b.rate for a, b in pairs)
    print(f"  {f'{_name(*ours)} / {_name(*other)}':80}{ratio:8.2f}")


def _name(title: str, products: int) -> str:
    return f"{title}, {products} product{'s' if products > 1 else ''}"
