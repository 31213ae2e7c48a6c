"""Run a saga here to the end, for synchronous views and shells; journalled as in a consumer."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.db import connection, connections

from saga_runtime import project_settings
from saga_runtime.database_errors import AWAY
from sagas.definition.current_step import current_place
from sagas.definition.discovery import AnySaga, registered_type
from sagas.errors import (
    CannotRunHere,
    SagaFailed,
    SagaParked,
    SagaUnfinished,
    WorkerUnwell,
)
from sagas.journal.final_context import final_context
from sagas.journal.new_sagas import insert_sagas
from sagas.models import ACTIVE, Saga, SagaStatus
from sagas.operations.starting import saga_row
from sagas.run.timing import Timing
from sagas.worker.executor import Executor

SHORTEST_LOOK = 0.01  # seconds between two looks at the saga
LONGEST_LOOK = 0.2
GRACE = 2.0  # seconds for the step that runs when time is up
# Each worker takes five database connections (seven where calls hang), and each caller one:
# together they leave room in a pool of 25. What finds no place waits for one, or for a consumer.
_PLACES = threading.BoundedSemaphore(3)


def run_saga_sync(
    saga: AnySaga,
    context: Mapping[str, Any],
    *,
    key: str | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Run a saga to the end and return the final context.

    An existing saga with the same name and key is not begun again, whatever the context: the end of
    the existing saga is awaited. If this process dies, a consumer goes on with the saga.

    Args:
        saga: a registered class. An instance stands for the class: workers make new instances.
        context: the first context, of values that the journal can keep.
        key: the business key, a text of 1 to 255 characters; by default random.
        timeout: seconds to wait; by default unlimited.

    Raises:
        SagaFailed: the saga was rolled back.
        SagaParked: the saga needs a person.
        SagaUnfinished: the time was up; the saga goes on in a consumer.
        SagaDefinitionError: the class is not registered.
        UnstorableValue: the journal cannot keep the context.
        CannotRunHere: inside a saga, a transaction, or a running event loop.
        ValueError: the key is none, or the timeout no number of seconds.
    """
    return LocalRunner().run(saga, context, key=key, timeout=timeout)


class LocalRunner:
    """Run sagas in threads of the current process.

    Args:
        timing: of the workers; by default the settings' timing, with the short grace of a
            waiting caller.
        places: how many workers the process may have at a time.
        clock: seconds, as `time.monotonic()`.
        sleep: waits so many seconds between two looks at the saga.
    """

    def __init__(
        self,
        *,
        timing: Timing | None = None,
        places: threading.Semaphore = _PLACES,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        # It has but one saga: where every thread is stuck, nothing is gained by waiting.
        self._timing = timing or replace(Timing.from_settings(), grace=GRACE, unwell_patience=0.0)
        self._places = places
        self._clock = clock
        self._sleep = sleep

    def run(
        self, saga: AnySaga, context: Mapping[str, Any], *, key: str | None, timeout: float | None
    ) -> dict[str, Any]:
        """Run a saga to the end: see `run_saga_sync()`."""
        _check_caller()
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"the timeout is {timeout!r}: give seconds from 0 on, or None")
        found = registered_type(saga)
        row = saga_row(found, context, str(uuid.uuid4()) if key is None else key)
        insert_sagas([row])
        return _result(self._wait_for_end(row.id, timeout=timeout))

    def _wait_for_end(self, key: UUID, *, timeout: float | None) -> Saga:
        """Wait, with a worker where there is a place for one.

        Returns:
            The saga when ended or parked, or the unfinished saga when time is up.
        """
        up_at = float("inf") if timeout is None else self._clock() + timeout
        pause = SHORTEST_LOOK
        worker: _Worker | None = None
        try:
            while True:
                left = up_at - self._clock()
                saga = _look(key, is_last=left <= 0)
                if saga is not None and saga.status not in ACTIVE:
                    if worker is not None:
                        worker.join()
                    return saga
                if saga is not None and left <= 0:
                    return saga
                worker = worker or self._start_worker(key)
                if worker is not None and worker.error is not None:
                    if not isinstance(worker.error, WorkerUnwell):
                        raise worker.error
                    # A step hangs: each further worker counts as a takeover, until the saga parks.
                    worker = None
                self._sleep(max(0.0, min(pause, left)))
                pause = min(pause * 1.5, LONGEST_LOOK)
        finally:
            if worker is not None:
                worker.stop()

    def _start_worker(self, key: UUID) -> "_Worker | None":
        """Start a worker for the saga; None where the process has too many workers."""
        if not self._places.acquire(blocking=False):
            return None
        worker = _Worker(key, timing=self._timing, when_over=self._places.release)
        worker.start()
        return worker


def _check_caller() -> None:
    """Refuse a caller that would block an event loop, or whose saga would not be durable.

    Raises:
        CannotRunHere: the caller is inside a saga, an event loop or a transaction.
    """
    if place := current_place.get(""):
        raise CannotRunHere(
            f"run_saga_sync inside {place}: it would wait for places that those who wait hold, and "
            "begin anew with each attempt. Enqueue the command that starts the other saga, by "
            "outbox.enqueue() in a local step or an on_finish function"
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise CannotRunHere(
            "run_saga_sync would block the event loop: call it in a thread, as by asyncio.to_thread"
        )
    if connection.in_atomic_block:
        raise CannotRunHere(
            "run_saga_sync inside a transaction: its journal would not be durable. Call it after "
            "the commit, or enqueue a command that starts the saga"
        )


def _look(key: UUID, *, is_last: bool) -> Saga | None:
    """Read the saga's present row; None while the database is away.

    Args:
        key: the saga's id.
        is_last: raise where the database is away.

    Raises:
        django.db.Error: the database is away, at the last look.
    """
    try:
        return Saga.objects.get(id=key)
    except AWAY:
        connection.close()
        if is_last:
            raise
        return None


class _Worker:
    """Run a saga in a thread.

    Stopped early, the worker leaves the saga to a consumer behind the running step.

    Args:
        key: the saga's id.
        timing: of the worker.
        when_over: called in the thread when nothing of the worker is left.

    Attributes:
        error: raised by the worker.
    """

    def __init__(self, key: UUID, *, timing: Timing, when_over: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._when_over = when_over
        self._grace = timing.grace
        self._executor = Executor(
            concurrency=1,
            timing=timing,
            journal_threads=1,
            call_threads=2,
            max_takeovers=project_settings.max_takeovers(),
            only=key,
        )
        self._thread = threading.Thread(target=self._run, name=f"saga {key}")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the worker behind the running step."""
        self._stop.set()
        self._executor.wake()

    def join(self) -> None:
        """Stop the worker, and wait until nothing of the worker is left."""
        self.stop()
        self._thread.join(self._grace)

    def _run(self) -> None:
        try:
            self._executor.run(self._stop)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self.error = error
        finally:
            connections.close_all()
            self._when_over()


def _result(saga: Saga) -> dict[str, Any]:
    """Return the context of a completed saga, or raise the state of the saga.

    Raises:
        SagaFailed, SagaParked, SagaUnfinished: the saga is not completed.
    """
    context = final_context(saga, is_lenient=saga.status != SagaStatus.COMPLETED)
    match saga.status:
        case SagaStatus.COMPLETED:
            return context
        case SagaStatus.ROLLED_BACK:
            raise SagaFailed(saga.failure, saga_id=saga.id, context=context)
        case SagaStatus.PARKED:
            raise SagaParked(saga.park_reason, saga_id=saga.id, context=context)
    text = f"{saga} is {saga.status} still; a consumer goes on with it"
    raise SagaUnfinished(text, saga_id=saga.id, context=context)
