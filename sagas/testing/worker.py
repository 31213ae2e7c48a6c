"""Run the executor in a worker process for tests, report its points, and end it at a given one.

The process runs no consumer. It reports each point to the test, and is killed or held at the
moment of its job.
"""

import os
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, TypedDict

import django
from django.conf import settings
from django.db import connections

from sagas.crash_points import Point, observe

GO = "go"
STOP = "stop"


class Options(TypedDict, total=False):
    """Describe how a worker shall be.

    Attributes:
        imports: modules to import first; the saga classes defined there are registered.
        settings: Django settings that differ from the project's.
        lease: seconds.
        backoff: seconds before a step's second attempt.
        concurrency: sagas at a time.
        patience: seconds after which the test gives up.
    """

    imports: Sequence[str]
    settings: Mapping[str, Any]
    lease: float
    backoff: float
    concurrency: int
    patience: float


@dataclass(frozen=True, slots=True)
class Moment:
    """Name the moment when a worker reaches a point.

    Attributes:
        point: the point.
        where: the step and its kind, as `charge_payment:F`; empty where the point has no step.
        nth: counts how often this worker has reached the point at this step, from 1 on.
    """

    point: Point
    where: str = ""
    nth: int = 1

    def __str__(self) -> str:
        times = f" (time {self.nth})" if self.nth > 1 else ""
        return f"{self.point} {self.where}".rstrip() + times


@dataclass(frozen=True, slots=True)
class Died:
    """Report the traceback of a worker that has failed."""

    error: str


class Fate(Enum):
    """Say how a worker is stopped at the moment of its job."""

    KILLED = "killed"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Tell a worker process how to run.

    Attributes:
        settings_module: the project's settings.
        databases: the connections' settings, by alias.
        at: the moment to stop the worker; None for no such moment.
        fate: how to stop the worker.
        imports: modules with saga classes to register.
        settings: Django settings that differ from the project's.
        lease: seconds.
        backoff: seconds before a step's second attempt.
        concurrency: sagas at a time.
    """

    settings_module: str
    databases: Mapping[str, dict[str, Any]]
    at: Moment | None = None
    fate: Fate = Fate.KILLED
    imports: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    lease: float = 1.0
    backoff: float = 0.01
    concurrency: int = 4


def set_up(job: Job) -> None:
    """Set Django up in this process, with the test's database and sagas."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", job.settings_module)
    for name, value in job.settings.items():
        setattr(settings, name, value)
    settings.DATABASES.update(job.databases)
    django.setup()
    connections.databases.update(job.databases)
    # The process that this one was forked from may have looked at other databases.
    for alias in job.databases:
        connections[alias].close()
        del connections[alias]
    from sagas.definition.discovery import register_all_in
    from sagas.journal import sql

    sql.is_postgresql.cache_clear()
    for name in job.imports:
        register_all_in(import_module(name))


def work(pipe: "Connection[Any, Any]", job: Job) -> None:
    """Run the worker process, from beginning to end; its failure is reported and raised."""
    try:
        _work(pipe, job)
    except BaseException:
        pipe.send(Died(traceback.format_exc()))
        raise
    finally:
        connections.close_all()


def _work(pipe: "Connection[Any, Any]", job: Job) -> None:
    set_up(job)
    from sagas.definition.registry import call_start_hooks
    from sagas.run.timing import Timing
    from sagas.worker.executor import Executor

    usual = Timing.from_settings()
    timing = replace(
        usual,
        lease=job.lease,
        longest_poll=0.05,
        retry=replace(usual.retry, first=job.backoff),
    )
    stop, go = threading.Event(), threading.Event()
    threading.Thread(target=_obey, args=(pipe, stop, go), daemon=True).start()
    observe(_Witness(pipe, job, go))
    call_start_hooks()
    Executor(concurrency=job.concurrency, timing=timing).run(stop)


class _Witness:
    """Report points, from any thread, one at a time, and stop the worker at its moment."""

    def __init__(self, pipe: "Connection[Any, Any]", job: Job, go: threading.Event) -> None:
        self._pipe = pipe
        self._job = job
        self._go = go
        self._lock = threading.Lock()
        self._times: Counter[tuple[Point, str]] = Counter()

    def __call__(self, point: Point, where: str) -> None:
        with self._lock:
            self._times[point, where] += 1
            moment = Moment(point, where, self._times[point, where])
            self._pipe.send(moment)
            if moment == self._job.at:
                self._meet_fate()

    def _meet_fate(self) -> None:
        if self._job.fate is Fate.KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        # The test sends the SIGSTOP; until it is told to go on, this thread stays here.
        self._go.wait()


def _obey(pipe: "Connection[Any, Any]", stop: threading.Event, go: threading.Event) -> None:
    while True:
        try:
            order = pipe.recv()
        except (EOFError, OSError):
            os._exit(1)  # the test is gone
        (go if order == GO else stop).set()
