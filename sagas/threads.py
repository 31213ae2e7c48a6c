import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

from django.db import connections

P = ParamSpec("P")
R = TypeVar("R")


class Threads:
    """A few threads for the ORM, each with a database connection that it keeps and closes."""

    def __init__(self, count: int, *, name: str) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._answers: _Answers | None = None

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it in one of the threads, with the caller's context variables."""
        loop = asyncio.get_running_loop()
        answers = self._answers
        if answers is None or answers.loop is not loop:
            answers = self._answers = _Answers(loop)
        answer: asyncio.Future[R] = loop.create_future()
        call = partial(copy_context().run, function, *args, **kwargs)
        self._pool.submit(_answer, call, answer, answers)
        return await answer

    def close(self, *, timeout: float = 5.0) -> None:
        """Wait for what runs, close each thread's connections, end the threads. What still waits
        for a thread gets no answer: its event loop is to end next."""
        together = threading.Barrier(self._count)
        closing = [self._pool.submit(_close, together, timeout) for _ in range(self._count)]
        wait(closing, timeout)
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Answers:
    """Brings answers into the event loop; those that come together wake it once. (The loop's own
    `run_in_executor` wakes it for each, and has two futures and two callbacks for it.)"""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._ready: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._is_woken = False

    def add(self, answer: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
        """To be called in any thread."""
        self._ready.append((answer, result, error))
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop is closed, nobody waits
                self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_woken = False  # before the first is taken: what comes later wakes it again
        while self._ready:
            answer, result, error = self._ready.popleft()
            if answer.done():  # nobody waits for it any more
                continue
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)


def _answer(call: Callable[[], Any], answer: "asyncio.Future[Any]", answers: _Answers) -> None:
    if answer.cancelled():
        return
    try:
        result = _healing(call)
    except BaseException as error:  # noqa: BLE001 - the caller's
        answers.add(answer, None, error)
    else:
        answers.add(answer, result, None)


def _healing(call: Callable[[], R]) -> R:
    """Call it; a connection that broke meanwhile is closed, so that the next call has a new one."""
    try:
        return call()
    except (asyncio.CancelledError, StopIteration) as error:
        # Handed on as they are, the first would look like a cancelled task, and the second cannot
        # pass through a future at all: the caller would wait for ever.
        raise RuntimeError(f"{type(error).__name__} was raised: {error}") from error
    finally:
        heal()


def heal() -> None:
    """Close those of this thread's connections that broke, so that the next query has a new one."""
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred and not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def _close(together: threading.Barrier, timeout: float) -> None:
    connections.close_all()
    try:
        together.wait(timeout)
    except threading.BrokenBarrierError:
        return
