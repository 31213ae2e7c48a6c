"""Measure `POST /orders/` a second, beside a bare Django view with the same two inserts.

    DATABASE_URL=postgres://… uv run --group dev python benchmarks/http.py

Both are served by the same gunicorn, on the same database, in turns; the table shows the median of
the rounds and the ratio of ours to the bare view. The bare view reads JSON and inserts one order
and one outbox row in one transaction: no validation, no items, no idempotence, no key's lock, no
correlation, no problem bodies.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # this folder's http.py must not stand before the standard library's

import argparse
import json
import os
import statistics
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

from benchmarks.ports import free_port, listens


def main() -> None:
    """Serve both, measure them in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=5, help="length of one turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--clients", type=int, default=8, help="requests at a time")
    arguments = parser.parse_args()
    os.environ.setdefault("SECRET_KEY", uuid.uuid4().hex)
    os.environ["PYTHONPATH"] = str(ROOT)
    manage = [sys.executable, str(ROOT / "manage.py")]
    subprocess.run([*manage, "migrate", "-v0"], check=True)
    subprocess.run([*manage, "load_sample_stock"], check=True, stdout=subprocess.DEVNULL)
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    with _gunicorn("config.wsgi") as ours, _gunicorn("benchmarks.bare_view") as bare:
        for port in (ours, bare):
            _rate(port, clients=arguments.clients, seconds=1)
        for turn in range(arguments.rounds):
            order = [("ours", ours), ("bare", bare)]
            for name, port in order if turn % 2 else reversed(order):
                rate = _rate(port, clients=arguments.clients, seconds=arguments.seconds)
                rates[name].append(rate)
    _print(rates)


def _print(rates: dict[str, list[float]]) -> None:
    print(f"{'':24} {'requests/s (median)':>20} {'min':>7} {'max':>7}")
    for name, title in (("bare", "bare view, two inserts"), ("ours", "POST /orders/")):
        found = rates[name]
        low, high = min(found), max(found)
        print(f"{title:24} {statistics.median(found):20.0f} {low:7.0f} {high:7.0f}")
    ratios = [a / b for a, b in zip(rates["ours"], rates["bare"], strict=True)]
    print(f"ratio, median of rounds: {statistics.median(ratios):.2f}")


@contextmanager
def _gunicorn(application: str) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn"]
    process = subprocess.Popen(
        [*command, "--bind", f"127.0.0.1:{port}", application], cwd=ROOT, env=os.environ
    )
    try:
        _await(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _await(port: int) -> None:
    deadline = time.monotonic() + 30
    while not listens(port):
        if time.monotonic() > deadline:
            raise SystemExit("gunicorn did not start")
        time.sleep(0.1)


def _rate(port: int, *, clients: int, seconds: float) -> float:
    """Answers of 202 a second; any other answer ends the benchmark."""
    counts = [0] * clients
    began = time.monotonic()
    threads = [
        threading.Thread(target=_post_until, args=(port, began + seconds, counts, n))
        for n in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began)


def _post_until(port: int, deadline: float, counts: list[int], client: int) -> None:
    connection = HTTPConnection("127.0.0.1", port)
    while time.monotonic() < deadline:
        body = {
            "order_id": f"B-{uuid.uuid4().hex}",
            "user_id": "USER-1",
            "items": [{"id": "ITEM-1", "name": "Widget", "quantity": 1}],
            "amount": 9.99,
        }
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/orders/", json.dumps(body), headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 202:  # noqa: PLR2004
            print(f"answered {response.status}: {answer[:200]!r}", file=sys.stderr)
            os._exit(1)  # a thread cannot end the process otherwise
        counts[client] += 1


if __name__ == "__main__":
    main()
