"""Control a worker process from a test."""

import multiprocessing
import os
import signal
from contextlib import suppress
from typing import Any, Unpack

from django.conf import settings
from django.db import connections

from sagas.testing import worker
from sagas.testing.worker import Died, Fate, Job, Moment, Options

PATIENCE = 30.0
"""Seconds to wait for a worker before a test fails."""

forking = multiprocessing.get_context("forkserver")
forking.set_forkserver_preload(["sagas.testing.warm"])


class Worker:
    """Control a worker process.

    Attributes:
        reached: the moments that the worker has reported so far.
        error: the traceback of a worker that has failed; otherwise empty.
    """

    def __init__(self, job: Job) -> None:
        self._pipe, theirs = forking.Pipe()
        self._process = forking.Process(target=worker.work, args=(theirs, job), daemon=True)
        self._process.start()
        theirs.close()
        self.reached: list[Moment] = []
        self.error = ""

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        assert self._process.pid is not None  # noqa: S101 - for the types
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Tell whether the process has ended."""
        return not self._process.is_alive()

    def listen(self) -> None:
        """Read the worker's reports into `reached` and `error`."""
        try:
            while self._pipe.poll():
                heard = self._pipe.recv()
                if isinstance(heard, Died):
                    self.error = heard.error
                else:
                    self.reached.append(heard)
        except (EOFError, OSError):
            return  # the worker has ended

    def freeze(self) -> None:
        """Stop the process where it is, by SIGSTOP, as a machine under load might."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen worker go on."""
        os.kill(self.pid, signal.SIGCONT)
        self._pipe.send(worker.GO)

    def kill(self) -> None:
        """Kill the process by SIGKILL, and wait until it is dead."""
        self._process.kill()
        self._process.join()
        self.listen()

    def tell_to_stop(self) -> None:
        """Ask the worker to finish the steps that run, and to end."""
        with suppress(OSError):  # the worker has ended already
            self._pipe.send(worker.STOP)

    def stop(self, *, patience: float = PATIENCE) -> int:
        """Ask the worker to stop, and wait.

        Args:
            patience: seconds to wait.

        Returns:
            The exit code; for a process killed by a signal, the negative of its number.

        Raises:
            AssertionError: the worker does not stop in time.
        """
        self.tell_to_stop()
        self._process.join(patience)
        self.listen()
        if self._process.exitcode is None:
            raise AssertionError(f"worker {self.pid} does not stop within {patience:g} s")
        return self._process.exitcode

    def clean_up(self) -> None:
        """Kill the process, and release its resources."""
        self.kill()
        self._pipe.close()
        self._process.close()


def job(*, at: Moment | None = None, fate: Fate = Fate.KILLED, **options: Unpack[Options]) -> Job:
    """Build the job of a worker process on this test's databases."""
    job_options: Any = {name: value for name, value in options.items() if name != "patience"}
    databases = {alias: connections[alias].settings_dict for alias in connections}
    return Job(
        settings_module=os.environ.get("DJANGO_SETTINGS_MODULE", "") or settings.SETTINGS_MODULE,
        databases=databases,
        at=at,
        fate=fate,
        **job_options,
    )
