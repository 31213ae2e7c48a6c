r"""Measure orders from `POST /orders/` to their end, beside the same writes by hand, and DBOS.

    DATABASE_URL=postgres://… SAGAZ_BROKER_URL=kafka://… \
        uv run --group peers python benchmarks/orders.py

The service runs as it is deployed: gunicorn, `run_outbox_relay` and `run_saga_consumer`, on a
database and topics that are made for it and deleted. First a closed loop: clients each place an
order, wait for its end and place the next. Orders a second are counted from the first POST to the
last end. Beside it, in turns, the same business rows are written in a second database by
`orders_by_hand.py`, and as workflows of DBOS. Then an open loop at each rate, and at a quarter of
the closed loop's maximum; `orders_stages.py` says where each moment comes from.

Commits are those of `pg_stat_database`: also transactions that only read, the empty statement by
which a pool checks a connection, and each notification that wakes the relay; this benchmark's own
are none. Rows are the tables' counts; HOT are the updated rows that changed no index. Statements,
round trips and commits of each part are counted in a run of its own, by a proxy before PostgreSQL;
statements without BEGIN and COMMIT. CPU time is from /proc: PostgreSQL's is the whole server's, and
`load` is this process.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # this folder's orders.py must not stand before the package

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec

import psycopg

from benchmarks import orders_report
from benchmarks.measuring import Observer, own_database
from benchmarks.orders_by_hand import ByHand, fill_stock
from benchmarks.orders_cases import Beside, Case, Ours
from benchmarks.orders_report import Results
from benchmarks.orders_service import Checkout, Topics

PROXIED = 200  # orders whose statements are counted


def main() -> None:
    """Prepare databases and topics, and measure."""
    arguments = _arguments()
    url = os.environ.get("DATABASE_URL", "")
    try:
        with ExitStack() as stack:
            ours = [
                _service(stack, Checkout(path.resolve()), number, url, arguments)
                for number, path in enumerate(arguments.service, 1)
            ]
            beside, observer = _beside(stack, url, arguments)
            orders_report.print_settings(vars(arguments), observer)
            _measure(ours, beside, arguments)
    except psycopg.OperationalError as error:
        raise SystemExit(f"PostgreSQL: {str(error).splitlines()[0]}") from error


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--orders", type=int, default=500, help="of the closed loop")
    parser.add_argument("--clients", type=int, default=50, help="of the closed loop")
    parser.add_argument(
        "--products", type=int, nargs="+", default=[1000, 1], help="of the closed loop, in turns"
    )
    parser.add_argument("--rounds", type=int, default=1, help="of the closed loop")
    parser.add_argument("--rates", type=_rates, default=[5.0, 10.0, 20.0], help="orders a second")
    parser.add_argument("--seconds", type=float, default=20, help="of each rate")
    parser.add_argument("--floor-threads", type=int, default=2, help="that write by hand")
    parser.add_argument("--floor-orders", type=int, default=3000, help="by hand, at least")
    parser.add_argument("--consumers", type=int, default=1, help="run_saga_consumer commands")
    parser.add_argument("--processes", type=int, default=1, help="of each run_saga_consumer")
    parser.add_argument(
        "--service",
        type=Path,
        nargs="+",
        default=[ROOT],
        help="checkouts, each with its .venv, in turns (default: this one)",
    )
    return parser.parse_args()


def _rates(text: str) -> list[float]:
    """Parse numbers with commas between them; an empty text has none."""
    return [float(part) for part in text.split(",") if part]


def _service(
    stack: ExitStack, checkout: Checkout, number: int, url: str, arguments: argparse.Namespace
) -> Ours:
    """Prepare a checkout's database and topics."""
    topics = stack.enter_context(Topics(os.environ.get("SAGAZ_BROKER_URL", "")))
    products = max(arguments.products)
    database, observer = _database(stack, checkout, url, f"_orders_{number}", products)
    return Ours(
        checkout,
        database,
        observer,
        topics,
        clients=arguments.clients,
        consumers=arguments.consumers,
        processes=arguments.processes,
    )


def _beside(
    stack: ExitStack, url: str, arguments: argparse.Namespace
) -> tuple[list[Case], Observer]:
    """Prepare a database for all that runs without the service."""
    products = max(arguments.products)
    database, observer = _database(stack, Checkout(ROOT), url, "_orders_beside", products)
    threads = dict.fromkeys([arguments.floor_threads, 1])
    cases: list[Case] = [
        Beside(ByHand(database, threads=each), observer, at_least=arguments.floor_orders)
        for each in threads
    ]
    if find_spec("dbos") is None:
        print("DBOS is not installed: uv run --group peers python benchmarks/orders.py")
    else:
        from benchmarks.orders_dbos import Workflows

        cases.append(Beside(Workflows(database), observer))
    return cases, observer


def _database(
    stack: ExitStack, checkout: Checkout, url: str, suffix: str, products: int
) -> tuple[str, Observer]:
    """Make a database with the checkout's tables and with stock."""
    database = stack.enter_context(own_database(url, suffix=suffix))
    checkout.migrate(database)
    fill_stock(database, products=products)
    return database, stack.enter_context(Observer(database))


def _measure(ours: Sequence[Ours], beside: Sequence[Case], arguments: argparse.Namespace) -> None:
    """Run all, and print each table as soon as there is one."""
    most = max(arguments.products)
    results = _rounds([*ours, *beside], arguments)
    orders_report.print_work(results)
    orders_report.print_cpu(results)
    proxied = min(arguments.orders, PROXIED)
    for case in ours:
        counts = case.statements(proxied, products=most)
        orders_report.print_statements(case.title, counts, orders=proxied)
    latencies = {}
    for case in ours:
        result = results[case.title, most][-1]
        orders_report.print_stages(f"{case.title}, closed loop", result.stages)
        quarter = result.rate / 4
        rates = [*arguments.rates, quarter]
        found = case.at_rates(rates, seconds=arguments.seconds, products=most)
        for rate, stages in found.items():
            orders_report.print_stages(f"{case.title}, {rate:.3g} orders/s", stages)
        latencies[case.title] = found[quarter]
    services = [case.title for case in ours]
    floor = ByHand.title_of(threads=1)
    orders_report.print_ratios(results, latencies, services=services, floor=floor)


def _rounds(cases: Sequence[Case], arguments: argparse.Namespace) -> Results:
    """Run all cases in turns, with each number of products."""
    results: Results = {
        (case.title, products): [] for products in arguments.products for case in cases
    }
    for turn in range(arguments.rounds):
        for products in arguments.products:
            for case in reversed(cases) if turn % 2 else cases:
                print(f"round {turn + 1}: {case.title}, {products} products", file=sys.stderr)
                result = case.run(arguments.orders, products=products)
                results[case.title, products].append(result)
    return results


if __name__ == "__main__":
    main()
