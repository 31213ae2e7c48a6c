r"""Measure orders a second of `manage.py up` as it comes: one process, SQLite, no broker.

    uv run python benchmarks/embedded.py --orders 400 --service . ../before

Each checkout has a database file of its own, and its own `place_orders` as the client. Counted are
the seconds from the first request to the last order's end, as that says.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.orders_service import PATIENCE, Checkout, environment
from benchmarks.ports import free_port, listens


def main() -> None:
    """Run the checkouts in turns, and print orders a second and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--orders", type=int, default=400, help="of each checkout in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=20, help="requests at a time")
    parser.add_argument("--service", type=Path, nargs="+", default=[Path()])
    arguments = parser.parse_args()
    checkouts = [Checkout(path.resolve()) for path in arguments.service]
    rates: dict[str, list[float]] = {checkout.title: [] for checkout in checkouts}
    for turn in range(arguments.rounds):
        for checkout in reversed(checkouts) if turn % 2 else checkouts:
            rate = _measure(checkout, arguments.orders, arguments.concurrency)
            print(f"round {turn + 1}: {checkout.title}: {rate:.1f} orders/s", file=sys.stderr)
            rates[checkout.title].append(rate)
    first, *others = rates
    print(f"\n{'':40}{'orders/s':>10}{'min':>8}{'max':>8}")
    for title, found in rates.items():
        print(f"{title:40}{statistics.median(found):10.1f}{min(found):8.1f}{max(found):8.1f}")
    for other in others:
        pairs = zip(rates[first], rates[other], strict=True)
        print(f"{first} / {other}: {statistics.median(a / b for a, b in pairs):.2f}")


def _measure(checkout: Checkout, orders: int, concurrency: int) -> float:
    """Place orders, and return how many ended a second."""
    with tempfile.TemporaryDirectory() as name, _running(checkout, Path(name)) as (url, env):
        command = [checkout.python, "manage.py", "place_orders", "--url", url]
        command += ["--count", str(orders), "--concurrency", str(concurrency), "--patience", "600"]
        said = subprocess.run(
            command, cwd=checkout.path, env=env, check=True, capture_output=True, text=True
        ).stdout
        found = re.search(r"ended after ([\d.]+) s", said)
        if found is None:
            raise SystemExit(f"{checkout.path}: place_orders says no more when all have ended")
        return orders / float(found[1])


@contextmanager
def _running(checkout: Checkout, directory: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Run `manage.py up` for the block; yield its address and its environment."""
    port = free_port()
    env = environment(
        DATABASE_URL=f"sqlite:///{directory}/orders.sqlite3", SAGAZ_BROKER_URL="memory://"
    )
    command = [checkout.python, "manage.py", "up", "--port", str(port)]
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(
            command, cwd=checkout.path, env=env, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            up_at = time.monotonic() + PATIENCE
            while not listens(port):
                if process.poll() is not None or time.monotonic() > up_at:
                    raise SystemExit(f"{checkout.path} does not come up: {log.name}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", env
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(PATIENCE)


if __name__ == "__main__":
    main()
