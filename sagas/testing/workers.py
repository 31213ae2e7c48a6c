"""Start worker processes, and wait for their ends."""

import signal
import time
from collections.abc import Callable
from typing import Unpack
from uuid import UUID

from django.db import connection

from sagas.crash_points import Point
from sagas.testing.process import PATIENCE, Worker, job
from sagas.testing.worker import Fate, Moment, Options

LOOK_EVERY = 0.01
"""Seconds between two looks at a worker."""


class Workers:
    """Start the worker processes of one test."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []

    def start(
        self, at: Moment | None = None, *, fate: Fate = Fate.KILLED, **options: Unpack[Options]
    ) -> Worker:
        """Start a worker, which runs until it is stopped.

        Args:
            at: the moment to stop the worker; None for no such moment.
            fate: how the worker is stopped at that moment.
            **options: how the worker shall be.

        Raises:
            AssertionError: the test is in a transaction, and the worker would see none of its rows.
        """
        if connection.in_atomic_block:
            raise AssertionError(
                "a worker process sees only what is committed: mark the test with "
                "@pytest.mark.django_db(transaction=True)"
            )
        options.pop("patience", None)
        started = Worker(job(at=at, fate=fate, **options))
        self._workers.append(started)
        return started

    def run(self, *sagas: UUID, **options: Unpack[Options]) -> Worker:
        """Run a worker, undisturbed, until sagas have ended or parked.

        Args:
            *sagas: the sagas to wait for.
            **options: how the worker shall be.

        Raises:
            AssertionError: a saga is still running after `patience`.
        """
        running = self.start(**options)
        self._wait(running, lambda: not _active(sagas), options, lambda: _unfinished(sagas))
        _expect_exit(running, 0)
        return running

    def crash(
        self, point: Point, where: str = "", *, nth: int = 1, **options: Unpack[Options]
    ) -> Worker:
        """Run a worker on all sagas that are due, and kill the worker at a point.

        Args:
            point: where the worker is killed.
            where: the step and its kind, as `charge_payment:F`; empty where the point has no step.
            nth: at which time of reaching the point.
            **options: how the worker shall be.

        Returns:
            The dead worker, with the moments that it reached.

        Raises:
            AssertionError: the worker never reached the point, before all sagas ended or
                `patience` was over.
        """
        moment = Moment(point, where, nth)
        victim = self.start(moment, fate=Fate.KILLED, **options)
        self._wait(victim, lambda: not _runnable(), options, lambda: _missed(victim, moment))
        if victim.stop() == 0:
            raise AssertionError(_missed(victim, moment))
        _expect_exit(victim, -signal.SIGKILL)
        if victim.reached[-1] != moment:
            raise AssertionError(f"it was killed at {victim.reached[-1]}, not at {moment}")
        return victim

    def hold(
        self, point: Point, where: str = "", *, nth: int = 1, **options: Unpack[Options]
    ) -> Worker:
        """Run a worker until a point, and freeze the worker there by SIGSTOP.

        Args:
            point: where the worker is frozen.
            where: the step and its kind, as `charge_payment:F`; empty where the point has no step.
            nth: at which time of reaching the point.
            **options: how the worker shall be.

        Returns:
            The frozen worker; `resume()` lets it go on.

        Raises:
            AssertionError: the worker never reached the point.
        """
        moment = Moment(point, where, nth)
        held = self.start(moment, fate=Fate.HELD, **options)

        def is_there() -> bool:
            return moment in held.reached

        def complain() -> str:
            return _missed(held, moment)

        self._wait(held, lambda: is_there() or not _runnable(), options, complain)
        if not is_there():  # the point may come only when the worker ends
            held.tell_to_stop()
            self._wait(held, is_there, options, complain)
            held.listen()
        if not is_there():
            raise AssertionError(complain())
        held.freeze()
        return held

    def clean_up(self) -> None:
        """Kill the workers that still run."""
        for each in self._workers:
            each.clean_up()
        self._workers.clear()

    def _wait(
        self,
        running: Worker,
        condition: Callable[[], bool],
        options: Options,
        complaint: Callable[[], str],
    ) -> None:
        """Wait until the condition holds, or the worker has ended."""
        patience = options.get("patience", PATIENCE)
        deadline = time.monotonic() + patience
        while not (running.has_ended or condition()):
            running.listen()
            if time.monotonic() > deadline:
                running.kill()
                raise AssertionError(f"not within {patience:g} s: {complaint()}")
            time.sleep(LOOK_EVERY)


def _expect_exit(ended: Worker, code: int) -> None:
    found = ended.stop()
    if found != code:
        raise AssertionError(f"the worker process ended with {found}: {ended.error or 'no error'}")


def _missed(late: Worker, moment: Moment) -> str:
    late.listen()
    reached = ", ".join(map(str, late.reached)) or "nothing"
    said = f"\n{late.error}" if late.error else ""
    return f"the worker never got to {moment}; it reached: {reached}{said}"


def _active(sagas: tuple[UUID, ...]) -> list[UUID]:
    from sagas.models import ACTIVE, Saga

    return list(Saga.objects.filter(id__in=sagas, status__in=ACTIVE).values_list("id", flat=True))


def _runnable() -> bool:
    from sagas.models import ACTIVE, Saga

    return Saga.objects.filter(status__in=ACTIVE, paused=False).exists()


def _unfinished(sagas: tuple[UUID, ...]) -> str:
    return f"still running: {', '.join(map(str, _active(sagas)))}"
