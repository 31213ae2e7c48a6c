"""Print what `benchmarks/orders.py` has measured."""

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

from benchmarks.measuring import Observer
from benchmarks.orders_cases import TRANSACTIONS, Result, Stages
from benchmarks.orders_stages import COMMIT_TO_END, percentile
from benchmarks.wire_counting import Counts

Results = dict[tuple[str, int], list[Result]]
"""The rounds of each case, with each number of products."""

_CPU = ("web", "relay", "consumer", "PostgreSQL", "Kafka", "load")
_SERVICE_SETTINGS = (
    "WEB_",
    "SAGA_",
    "OUTBOX_",
    "KAFKA_",
    "DATABASE_POOL",
    "PAYMENT_",
    "SAGAZ_KAFK",
)


def print_settings(arguments: Mapping[str, object], observer: Observer) -> None:
    """Print what was run, and where."""
    given = ", ".join(f"{name} {_text(value)}" for name, value in arguments.items())
    print(f"{given}\n{os.cpu_count()} cores, Python {platform.python_version()},", end=" ")
    print(
        f"PostgreSQL {observer.ask('SHOW server_version')}, psycopg {version('psycopg')},", end=" "
    )
    shown = [f"{name} {observer.ask(query)}" for name, query in _SHOWN.items()]
    print(", ".join(shown))
    kept = [f"{name}={os.environ[name]}" for name in sorted(os.environ) if _is_setting(name)]
    print(f"settings of the service: {' '.join(kept) or 'defaults'}\n")


_SHOWN = {"fsync": "SHOW fsync", "synchronous_commit": "SHOW synchronous_commit"}


def _is_setting(name: str) -> bool:
    return name.startswith(_SERVICE_SETTINGS)


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def print_work(results: Results) -> None:
    """Print orders a second, and the database's work for each order."""
    print(f"{'closed loop; work for one order':44}{'orders/s':>9}{'min':>7}{'max':>7}", end="")
    print(f"{'commits':>9}{'inserted':>10}{'updated':>9}{'HOT':>6}{'deleted':>9}")
    for (title, products), rounds in results.items():
        rates = [result.rate for result in rounds]
        median = _medians(rounds)
        print(f"{_name(title, products):44}{statistics.median(rates):9.1f}", end="")
        print(f"{min(rates):7.1f}{max(rates):7.1f}", end="")
        print(
            f"{median(lambda r: r.work.commits):9.2f}{median(lambda r: r.work.inserted):10.2f}",
            end="",
        )
        print(f"{median(lambda r: r.work.updated):9.2f}{median(lambda r: r.work.hot):6.2f}", end="")
        print(f"{median(lambda r: r.work.deleted):9.2f}")


def print_cpu(results: Results) -> None:
    """Print the CPU time of each process for an order."""
    print(f"\n{'CPU, milliseconds for one order':44}{''.join(f'{name:>12}' for name in _CPU)}")
    for (title, products), rounds in results.items():
        print(f"{_name(title, products):44}", end="")
        for name in _CPU:
            found = [result.cpu[name] for result in rounds if name in result.cpu]
            print(f"{statistics.median(found):12.2f}" if found else f"{'?':>12}", end="")
        print()


def print_statements(title: str, counts: Mapping[str, Counts], *, orders: int) -> None:
    """Print what each part sends to PostgreSQL for an order."""
    print(
        f"\n{f'{title}, for one order':44}{'statements':>12}{'round trips':>13}{'transactions':>14}"
    )
    rows = {**counts, "all": sum(counts.values(), start=Counts())}
    for part, found in rows.items():
        print(f"  {part:42}{found.statements / orders:12.2f}", end="")
        print(f"{found.round_trips / orders:13.2f}{found.transactions / orders:14.2f}")


def print_stages(title: str, stages: Stages) -> None:
    """Print how long each stage took."""
    print(f"\n{f'{title}, milliseconds':44}{'p50':>9}{'p95':>9}{'p99':>9}")
    for stage, values in stages.items():
        figures = "".join(f"{percentile(values, share):9.1f}" for share in (0.5, 0.95, 0.99))
        print(f"  {stage:42}{figures}")


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
        for service in services:
            if title not in (service, floor) and (title not in services or service == services[0]):
                _print_ratio(results, (service, products), (title, products))
    many, few = max(p for _, p in results), min(p for _, p in results)
    for title in dict.fromkeys(title for title, _ in results):
        if many != few:
            _print_ratio(results, (title, few), (title, many))
    alone = percentile(results[floor, many][-1].stages[TRANSACTIONS], 0.5)
    print(f"  an order's transactions {floor}: p50 {alone:.2f} ms")
    for service, stages in latencies.items():
        p50, p99 = (percentile(stages[COMMIT_TO_END], share) for share in (0.5, 0.99))
        print(f"  {service}, a quarter of the maximum: p50 / these {p50 / alone:.1f},", end=" ")
        print(f"p99 / p50 {p99 / p50:.1f}")


def _print_ratio(results: Results, ours: tuple[str, int], other: tuple[str, int]) -> None:
    pairs = zip(results[ours], results[other], strict=True)
    ratio = statistics.median(a.rate / b.rate for a, b in pairs)
    print(f"  {f'{_name(*ours)} / {_name(*other)}':80}{ratio:7.2f}")


def _medians(rounds: Sequence[Result]) -> Callable[[Callable[[Result], float]], float]:
    return lambda figure: statistics.median(map(figure, rounds))


def _name(title: str, products: int) -> str:
    return f"{title}, {products} product{'s' if products > 1 else ''}"
