"""The parts of the service over PostgreSQL and Kafka, without a supervisor: a test starts and kills
them."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import requests

from tests import processes
from tests.e2e.full_service import FullService
from tests.e2e.service import START_TIMEOUT, Json, until

_GUNICORN = (sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn")
_FORKS = (sys.executable, "-m", "tests.e2e.project.forks")


HARDLY_ANY_BACKOFF = {"SAGA_FIRST_BACKOFF": "0.01", "SAGA_LONGEST_BACKOFF": "0.05"}


@dataclass(frozen=True, slots=True)
class Consumer:
    pid: int

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


class Parts(FullService):
    """Web server and relay, and as many consumers as a test starts, on a database that has all
    tables and the sample products."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._env |= {
            "DJANGO_SETTINGS_MODULE": "tests.e2e.project.settings",
            "PYTHONPATH": os.pathsep.join((str(processes.ROOT), str(self.directory))),
            "SUPERVISED": "1",  # each ends when its standard input does
        }
        self._parts: list[subprocess.Popen[str]] = []

    def start(self, **env: str) -> None:
        """Start web server and relay, and wait until they are ready."""
        self._env |= env
        self._log.write_bytes(b"")
        self._forks = self._spawn(*_FORKS)
        self._spawn(*processes.MANAGE, "run_outbox_relay")
        self._spawn(*_GUNICORN, "--bind", f"127.0.0.1:{self.port}", "config.wsgi")
        until(lambda: "relay: ready" in self.output, timeout=START_TIMEOUT)
        until(self._answers, timeout=START_TIMEOUT)

    def _answers(self) -> bool:
        with suppress(requests.ConnectionError):
            return self.get("/health/").ok
        return False

    def _spawn(self, *command: str) -> "subprocess.Popen[str]":
        with self._log.open("ab") as log:
            part = subprocess.Popen(
                command,
                env=processes.environment(self.directory) | self._env,
                cwd=self.directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if command == _FORKS else log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._parts.append(part)
        return part

    def clean_up(self) -> None:
        for part in self._parts:
            os.killpg(part.pid, signal.SIGKILL)
            with part:  # closes its pipes and waits
                pass

    def start_consumer(self, *arguments: str) -> Consumer:
        """A `run_saga_consumer`; does not wait for it."""
        orders, answers = self._forks.stdin, self._forks.stdout
        assert orders is not None
        assert answers is not None
        orders.write(" ".join(("run_saga_consumer", *arguments)) + "\n")
        orders.flush()
        return Consumer(int(answers.readline()))

    def start_consumers(self, count: int, *arguments: str) -> list[Consumer]:
        """So many, and they are ready."""
        ready = self._consumers_ready() + count
        started = [self.start_consumer(*arguments) for _ in range(count)]
        until(self._consumers_ready, reaches=ready, timeout=START_TIMEOUT)
        return started

    def _consumers_ready(self) -> int:
        return self.output.count("consumer: ready")

    def enqueue(self, topic: str, type_: str, *payloads: Json, key: str) -> None:
        """Put messages into the outbox. `key`: the payload's field with the message's key."""
        done = self.manage("enqueue", topic, type_, key, json.dumps(payloads))
        assert done.returncode == 0, done.stderr
