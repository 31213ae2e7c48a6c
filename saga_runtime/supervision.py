"""Keep the processes of a command running, and end them with it.

A process that dies is started again, after a pause that doubles from half a second to ten while the
process keeps dying. Each line of its output is printed behind its name.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from saga_runtime.backoff import Backoff
from saga_runtime.text import visible

RESTARTS = Backoff(first=0.5, longest=10.0)
STEADY_SECONDS = 30.0  # after which a part that dies counts as having worked
STOP_TIMEOUT = 45.0  # more than a part needs to finish its work
POLL_SECONDS = 0.05
LAST_LINES_SECONDS = 5.0  # for what a process that has ended has printed
_SUPERVISED = {"SUPERVISED": "1", "PYTHONUNBUFFERED": "1"}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """Describe a process to keep running.

    Attributes:
        name: stands before each line of output.
        command: program and arguments.
        ready: the line by which the process says that it works; empty where it does not say so.
        environment: variables besides those of this process.
        logs_apart: whether standard error goes, as it is, where that of this process goes.
    """

    name: str
    command: Sequence[str]
    ready: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    logs_apart: bool = False


class Supervisor:
    """Keep each part running until `stop()`.

    Args:
        groups: processes to run. Those of a group are stopped together, after the groups before it.
        say: prints one line.
        gives_up: whether all end where a part ends with an error before it has ever worked, as a
            command does that its user has set up wrongly.

    Attributes:
        failure: the part for which all have ended, and how that part has ended; empty for none.
    """

    def __init__(
        self, groups: Sequence[Sequence[Part]], *, say: Say, gives_up: bool = False
    ) -> None:
        width = max(len(part.name) for group in groups for part in group)
        self._gives_up = gives_up
        self.failure = ""
        self._stop_requested = threading.Event()
        self._groups = [
            [
                _ChildProcess(
                    part,
                    say=_prefixed(say, part.name.ljust(width)),
                    stop_requested=self._stop_requested,
                    gives_up=self._give_up,
                )
                for part in group
            ]
            for group in groups
        ]
        self._children = [child for group in self._groups for child in group]

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

    def join(self, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait for `stop()`, then stop the groups one after the other.

        Args:
            meanwhile: called again and again until then.
        """
        try:
            while not self._stop_requested.wait(POLL_SECONDS):
                meanwhile()  # a wait without a timeout might not notice a signal
        finally:
            self._stop_requested.set()
            for group in self._groups:
                _stop_together(group)

    def _give_up(self, failure: str) -> bool:
        """End all parts, where that is wanted, since one has never worked."""
        if self._gives_up:
            self.failure = self.failure or failure
            self._stop_requested.set()
        return self._gives_up


class _ChildProcess:
    """Keep one process running, from a thread of its own."""

    def __init__(
        self,
        part: Part,
        *,
        say: Say,
        stop_requested: threading.Event,
        gives_up: Callable[[str], bool],
    ) -> None:
        self._part = part
        self._say = say
        self._stop_requested = stop_requested
        self._gives_up = gives_up
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

    def join(self, seconds: float) -> None:
        """Wait for the process to end; send SIGKILL where SIGTERM was not enough.

        Args:
            seconds: that SIGTERM may take.
        """
        self._keeper.join(seconds)
        process = self._process
        if self._keeper.is_alive() and process is not None and process.poll() is None:
            self._say(f"did not stop within {STOP_TIMEOUT:.0f} s, killed")
            process.kill()
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
            never_worked = code > 0 and not self.has_worked
            if never_worked and self._gives_up(f"{self.name} {_how_it_ended(code)}"):
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
                stderr=None if self._part.logs_apart else subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, **self._part.environment, **_SUPERVISED},
            )
            return self._process

    def _follow(self, process: subprocess.Popen[str]) -> int:
        """Print the output until the process ends.

        Returns:
            The exit code; negative for a signal.
        """
        # In a thread: a process that this one has started, and left, may keep the output open.
        reader = threading.Thread(target=self._print, args=(process.stdout,), daemon=True)
        reader.start()
        code = process.wait()
        reader.join(LAST_LINES_SECONDS)
        if process.stdin is not None:
            process.stdin.close()
        return code

    def _print(self, output: IO[str]) -> None:
        """Print each line until the output ends."""
        with output:
            for line in output:
                self._say(line.rstrip("\n"))
                if line.strip() == self._part.ready:
                    self.has_worked = True


def _stop_together(group: Sequence[_ChildProcess]) -> None:
    for child in group:
        child.terminate()
    up_at = time.monotonic() + STOP_TIMEOUT
    for child in group:
        child.join(max(0.0, up_at - time.monotonic()))


def _how_it_ended(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _prefixed(say: Say, name: str) -> Say:
    return lambda line: say(f"{name} | {visible(line)}")
