"""Run web server, relay and consumers as processes of their own, over a shared broker.

Each line of their output is printed behind the part's name. A part that dies is started again,
after a pause that doubles from half a second to ten while the part keeps dying.
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
STOP_TIMEOUT = 45.0  # more than a part needs to finish its work
POLL_SECONDS = 0.05

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """Describe a process to keep running.

    Attributes:
        name: stands before each line of output.
        command: program and arguments.
        ready: the line by which the process says that it works; empty where it does not say so.
    """

    name: str
    command: Sequence[str]
    ready: str = ""


def parts(*, host: str, port: int, consumers: int) -> list[Part]:
    """List the processes of the service, in the order of their stops: no new orders first.

    Args:
        host: address to serve.
        port: port to serve.
        consumers: number of consumer processes.
    """
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
    """Keep each part running until `stop()`.

    Args:
        parts: processes to run.
        say: prints one line.
    """

    def __init__(self, parts: Sequence[Part], *, say: Say) -> None:
        width = max(len(part.name) for part in parts)
        self._stop_requested = threading.Event()
        self._children = [
            _ChildProcess(
                part,
                say=_prefixed(say, part.name.ljust(width)),
                stop_requested=self._stop_requested,
            )
            for part in parts
        ]

    def stop(self) -> None:
        """Request the end of `join()`. Not to be called from a signal handler."""
        self._stop_requested.set()

    def start(self) -> None:
        """Start every part."""
        for child in self._children:
            child.start()

    def unready(self) -> list[str]:
        """List the parts that have still to say that they work."""
        return [child.name for child in self._children if not child.has_worked]

    def join(self) -> None:
        """Wait for `stop()`, then stop the parts one after the other."""
        while not self._stop_requested.wait(POLL_SECONDS):
            pass  # a wait without a timeout might not notice a signal
        web, relay, *consumers = self._children
        for group in ([web], [relay], consumers):
            for child in group:
                child.terminate()
            for child in group:
                child.join()


class _ChildProcess:
    """Keep one process running, from a thread of its own."""

    def __init__(self, part: Part, *, say: Say, stop_requested: threading.Event) -> None:
        self._part = part
        self._say = say
        self._stop_requested = stop_requested
        self.name = part.name
        self.has_worked = not part.ready
        self._stopping = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._keeper = threading.Thread(target=self._keep_running, name=part.name)

    def start(self) -> None:
        """Start the thread, which starts the process."""
        self._keeper.start()

    def terminate(self) -> None:
        """Send SIGTERM, and start the process no more."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    def join(self) -> None:
        """Wait for the process to end; send SIGKILL where SIGTERM was not enough."""
        self._keeper.join(STOP_TIMEOUT)
        if self._keeper.is_alive() and self._process is not None:
            self._say(f"did not stop within {STOP_TIMEOUT:.0f} s, killed")
            self._process.kill()
            self._keeper.join()

    def _keep_running(self) -> None:
        """Start the process again and again, until the end is requested."""
        failures = 0
        while True:
            began = time.monotonic()
            process = self._spawn()
            if process is None:
                return
            code = self._follow(process)
            if self._stopping.is_set() or self._stop_requested.is_set():
                return
            was_steady = time.monotonic() - began > STEADY_SECONDS
            failures = 1 if was_steady else failures + 1
            pause = RESTARTS.pause(failures)
            self._say(f"{_how_it_ended(code)}, starting it again in {pause:.1f} s")
            if self._stop_requested.wait(pause):
                return

    def _spawn(self) -> subprocess.Popen[str] | None:
        """Start the process; None once it shall stop."""
        with self._lock:
            if self._stopping.is_set():
                return None
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                self._part.command,
                # Never written to: killing this process closes the pipe, which stops the part.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=_environment(),
            )
            return self._process

    def _follow(self, process: subprocess.Popen[str]) -> int:
        """Print the output until the process ends.

        Returns:
            The exit code; negative for a signal.
        """
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
    """Build the environment; PYTHONPATH lets gunicorn find our modules from any folder."""
    project = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (project, os.environ.get("PYTHONPATH"))))
    return os.environ | {"SUPERVISED": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}


def _how_it_ended(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _prefixed(say: Say, name: str) -> Say:
    return lambda line: say(f"{name} | {visible(line)}")
