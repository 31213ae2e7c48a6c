"""One worker process, as a test sees it."""

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

forking = multiprocessing.get_context("forkserver")
forking.set_forkserver_preload(["sagas.testing.warm"])


class Worker:
    """A worker process. `reached`: the moments that it has reported so far."""

    def __init__(self, job: Job) -> None:
        self._pipe, theirs = forking.Pipe()
        self._process = forking.Process(target=worker.work, args=(theirs, job), daemon=True)
        self._process.start()
        theirs.close()
        self.reached: list[Moment] = []
        self.error = ""

    @property
    def pid(self) -> int:
        assert self._process.pid is not None  # noqa: S101 - for the types
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return not self._process.is_alive()

    def listen(self) -> None:
        """Take in what it has reported."""
        try:
            while self._pipe.poll():
                heard = self._pipe.recv()
                if isinstance(heard, Died):
                    self.error = heard.error
                else:
                    self.reached.append(heard)
        except (EOFError, OSError):
            return  # it has ended

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on from where it is held."""
        os.kill(self.pid, signal.SIGCONT)
        self._pipe.send(worker.GO)

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead."""
        self._process.kill()
        self._process.join()
        self.listen()

    def tell_to_stop(self) -> None:
        """It finishes what it runs, and ends."""
        with suppress(OSError):  # it has ended already
            self._pipe.send(worker.STOP)

    def stop(self, *, patience: float = PATIENCE) -> int:
        """Tell it to stop, and wait; returns its exit code, the negative of a signal."""
        self.tell_to_stop()
        self._process.join(patience)
        self.listen()
        if self._process.exitcode is None:
            raise AssertionError(f"worker {self.pid} does not stop within {patience:g} s")
        return self._process.exitcode

    def clean_up(self) -> None:
        self.kill()
        self._pipe.close()
        self._process.close()


def job(*, at: Moment | None = None, fate: Fate = Fate.KILLED, **options: Unpack[Options]) -> Job:
    """What a process on this test's databases is told."""
    told: Any = {name: value for name, value in options.items() if name != "patience"}
    databases = {alias: connections[alias].settings_dict for alias in connections}
    return Job(
        settings_module=os.environ.get("DJANGO_SETTINGS_MODULE", "") or settings.SETTINGS_MODULE,
        databases=databases,
        at=at,
        fate=fate,
        **told,
    )
