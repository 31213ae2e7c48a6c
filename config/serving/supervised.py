"""Web server, relay and consumer as processes of their own, over a broker that they share.

Their lines are printed with their names before them. One that dies is started again, after a pause
that doubles from half a second to ten while it keeps dying.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from saga_runtime.backoff import Backoff
from saga_runtime.text import visible

RESTARTS = Backoff(first=0.5, longest=10.0)
STEADY_SECONDS = 30.0  # after which a part that dies counts as having worked
STOP_TIMEOUT = 45.0  # over the longest that a part takes to finish what runs
POLL_SECONDS = 0.05

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """A process to keep running. `ready`: the line by which it says that it works, if it does."""

    name: str
    command: Sequence[str]
    ready: str = ""


def parts(*, host: str, port: int, consumers: int) -> list[Part]:
    """What makes up the service, in the order in which it stops: no new orders first."""
    manage = [sys.executable, os.path.abspath(sys.argv[0])]  # noqa: PTH100 - keeps links as they are
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn"]
    names = ["consumer"] if consumers == 1 else [f"consumer-{n + 1}" for n in range(consumers)]
    return [
        Part("web", [*gunicorn, "--bind", bind, "config.wsgi"]),
        Part("relay", [*manage, "run_outbox_relay"], ready="relay: ready"),
        *(Part(name, [*manage, "run_saga_consumer"], ready="consumer: ready") for name in names),
    ]


class Supervisor:
    """Keeps each part running until told to stop.

    Args:
        parts: what to run.
        say: prints one line.
    """

    def __init__(self, parts: Sequence[Part], *, say: Say) -> None:
        width = max(len(part.name) for part in parts)
        self._over = threading.Event()
        self._children = [
            _Child(part, say=_prefixed(say, part.name.ljust(width)), over=self._over)
            for part in parts
        ]

    def stop(self) -> None:
        """Not to be called from a signal handler."""
        self._over.set()

    def start(self) -> None:
        for child in self._children:
            child.start()

    def unready(self) -> list[str]:
        """List the parts that have not yet said that they work, of those that say so."""
        return [child.name for child in self._children if not child.has_worked]

    def join(self) -> None:
        """Wait for `stop()`, then stop the parts one after the other."""
        while not self._over.wait(POLL_SECONDS):
            pass  # a wait without end might not notice a signal
        web, relay, *consumers = self._children
        for together in ([web], [relay], consumers):
            for child in together:
                child.terminate()
            for child in together:
                child.join()


class _Child:
    def __init__(self, part: Part, *, say: Say, over: threading.Event) -> None:
        self._part = part
        self._say = say
        self._over = over
        self.name = part.name
        self.has_worked = not part.ready
        self._stopping = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._keeper = threading.Thread(target=self._keep_running, name=part.name)

    def start(self) -> None:
        self._keeper.start()

    def terminate(self) -> None:
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    def join(self) -> None:
        """Wait until it has ended; SIGKILL where SIGTERM was not enough."""
        self._keeper.join(STOP_TIMEOUT)
        if self._keeper.is_alive() and self._process is not None:
            self._say(f"did not stop within {STOP_TIMEOUT:.0f} s, killed")
            self._process.kill()
            self._keeper.join()

    def _keep_running(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            process = self._spawn()
            if process is None:
                return
            code = self._follow(process)
            if self._stopping.is_set() or self._over.is_set():
                return
            was_steady = time.monotonic() - began > STEADY_SECONDS
            failures = 1 if was_steady else failures + 1
            pause = RESTARTS.pause(failures)
            self._say(f"{_died(code)}, starting it again in {pause:.1f} s")
            if self._over.wait(pause):
                return

    def _spawn(self) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                self._part.command,
                # Never written to: it closes when this process is killed, and the part stops.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=_environment(),
            )
            return self._process

    def _follow(self, process: subprocess.Popen[str]) -> int:
        """Print what it says until it ends; returns its exit code."""
        output: IO[str] | None = process.stdout
        if output is not None:
            with output:
                for line in output:
                    self._say(line.rstrip("\n"))
                    self.has_worked = self.has_worked or line.strip() == self._part.ready
        code = process.wait()
        if process.stdin is not None:
            process.stdin.close()
        return code


def _environment() -> dict[str, str]:
    """gunicorn finds our modules only from where it runs, so it is told where they are."""
    project = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (project, os.environ.get("PYTHONPATH"))))
    return os.environ | {"SUPERVISED": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}


def _died(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _prefixed(say: Say, name: str) -> Say:
    return lambda line: say(f"{name} | {visible(line)}")
