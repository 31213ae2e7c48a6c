"""`manage.py up`, the real process, with a directory and a port of its own."""

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import requests

from tests import processes
from tests.ports import free_port

START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
SLOWEST = 5  # how many times slower a machine may be than one on which the limits were chosen

Json = dict[str, Any]


class Service:
    """The service of one directory, which outlives its processes.

    Args:
        directory: where it keeps things.
        arguments: of `up`.
    """

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self._arguments = arguments
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = directory / "up.log"
        self._env: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **env: str) -> None:
        """Start it and wait until it is ready. Settings once given stay."""
        self._env |= env
        self._log.write_bytes(b"")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*processes.MANAGE, "up", "--port", str(self.port), *self._arguments],
                env=processes.environment(self.directory) | self._env,
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: self.is_ready or self.has_ended, timeout=START_TIMEOUT)
        assert self.is_ready, self.output

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None
        return self._process

    @property
    def is_ready(self) -> bool:
        return f"Ready: {self.url}/\n" in self.output

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def output(self) -> str:
        return self._log.read_text()

    def lines(self) -> Iterator[str]:
        """What `output` holds, one line at a time."""
        with self._log.open() as log:
            yield from log

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill_group(self) -> None:
        """SIGKILL to all of it at once, as when the power goes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_TIMEOUT * SLOWEST)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(STOP_TIMEOUT * SLOWEST)

    def clean_up(self) -> None:
        if self._process is not None and not self.has_ended:
            self.kill_group()

    def post(self, body: Json, **headers: str) -> requests.Response:
        """Over a connection of its own."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(f"{self.url}/orders/", json=body, headers=sent, timeout=40 * SLOWEST)

    def cancel(self, order_id: str) -> requests.Response:
        return requests.post(f"{self.url}/orders/{order_id}/cancel/", timeout=40 * SLOWEST)

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=10 * SLOWEST)

    def order(self, order_id: str) -> Json:
        body: Json = self.get(f"/orders/{order_id}/").json()
        return body

    def ended_orders(self) -> set[str]:
        """The ids of the orders that have ended or that say that a person must look."""
        rows = self.query(
            "SELECT order_id FROM orders_order WHERE status NOT IN ('pending', 'processing')"
        )
        return {order_id for (order_id,) in rows}

    def manage(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """With its settings, in a process of its own."""
        return processes.manage(self.directory, *arguments, **self._env | env)

    def query(self, sql: str) -> list[Any]:
        """Look into its SQLite file, or change it, from outside."""
        file = self.directory / "db.sqlite3"
        with closing(sqlite3.connect(file, timeout=20)) as connection, connection:
            return connection.execute(sql).fetchall()

    def assert_audit_is_clean(self) -> None:
        audit = self.manage("audit_orders")
        assert audit.returncode == 0, audit.stdout + audit.stderr


def until(condition: Callable[[], object], *, timeout: float, reaches: int = 1) -> None:
    """Wait until it holds, or its number reaches one; fail when time is up."""
    deadline = time.monotonic() + timeout * SLOWEST
    while not _holds(condition(), reaches):
        assert time.monotonic() < deadline, f"not within {timeout * SLOWEST} s"
        time.sleep(0.05)


def _holds(value: object, reaches: int) -> bool:
    return value >= reaches if isinstance(value, int) else bool(value)
