"""Run the ORM in a few threads, beside an event loop."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from django.db import connections

from saga_runtime.abandoned_calls import current_step
from saga_runtime.allowance import Allowance
from saga_runtime.hang_watch import Watch
from saga_runtime.text import error_text

P = ParamSpec("P")
R = TypeVar("R")


class NoThreadLeft(Exception):  # noqa: N818 - states the fact
    """Raised where each of a worker's threads is stuck: nothing was begun."""

    def __init__(self) -> None:
        super().__init__("each thread is stuck in a call that has not come back")


class CallHangs(Exception):  # noqa: N818 - states the fact
    """Raised where a call in a thread does not return; the call may still commit."""


class Threads:
    """Run calls in a few threads; each thread keeps a database connection.

    An abandoned call, whose step has timed out, may hold a thread for ever. Meanwhile a spare
    thread takes the place of the stuck thread.

    Args:
        count: threads at work at a time.
        name: of each thread.
        spare: at most so many stuck threads are replaced.
    """

    def __init__(self, count: int, *, name: str, spare: int = 0) -> None:
        self._count = count
        self._name = name
        self._spare = spare
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._alive: set[threading.Thread] = set()
        self._stuck: list[_Call] = []
        self._answers: _Answers | None = None

    @property
    def is_exhausted(self) -> bool:
        """Tell whether each thread is stuck, with the spare threads."""
        return len(self._stuck) >= self._count + self._spare

    @property
    def stuck(self) -> list[str]:
        """Return the steps of stuck calls, the oldest first."""
        return [call.step for call in [*self._stuck]]

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function in a thread, with the caller's context variables."""
        call = _Call(self._answers_here(), partial(copy_context().run, function, *args, **kwargs))
        self._submit(call)
        answer: R = await call.answer
        return answer

    async def run_for(
        self, allowance: Allowance, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a step's function in a thread; the wait for a thread takes no time of the allowance.

        Raises:
            NoThreadLeft: all threads are stuck; the function was not begun.
        """
        call = _Call(self._answers_here(), partial(copy_context().run, function, *args, **kwargs))
        call.begins = call.answers.loop.create_future()
        if self.is_exhausted:
            raise NoThreadLeft
        try:
            if not self._submit(call):
                with allowance.waiting():
                    await asyncio.wait([call.begins, call.answer], return_when="FIRST_COMPLETED")
            answer: R = await call.answer
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        return answer

    async def run_watched(
        self, watch: Watch, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a function in a thread, until the watch finds the call hanging.

        Raises:
            CallHangs: the call is abandoned, and the thread stuck; the call may still have effects.
        """
        watched = partial(watch.call, function, *args, **kwargs)
        call = _Call(self._answers_here(), partial(copy_context().run, watched))
        self._submit(call)
        timer = call.answers.loop.call_later(watch.left(), lambda: look())  # noqa: PLW0108 - bound below

        def look() -> None:
            nonlocal timer
            if call.answer.done():
                return
            if (left := watch.left()) > 0:
                timer = call.answers.loop.call_later(left, look)
                return
            call.answer.set_exception(CallHangs(f"{watch.step or call.step} does not come back"))
            self._abandon(call)

        try:
            answer: R = await call.answer
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        finally:
            timer.cancel()
        return answer

    def refuse_waiting(self) -> None:
        """Refuse every call that waits for a thread."""
        with suppress(Empty):
            while True:
                call = self._queue.get_nowait()
                if call is not None:
                    call.answers.add(call.answer, None, NoThreadLeft())

    def close(self, *, timeout: float = 5.0) -> None:
        """Wait for running calls, close each thread's connections, and end the threads.

        A stuck thread ends with the process.

        Args:
            timeout: seconds to wait.
        """
        close_all([self], timeout=timeout)

    def end(self) -> list[threading.Thread]:
        """Let each thread end behind the running call; return the threads."""
        with self._lock:
            threads = list(self._alive)
        for _ in threads:
            self._queue.put(None)
        return threads

    def _answers_here(self) -> "_Answers":
        loop = asyncio.get_running_loop()
        answers = self._answers
        if answers is None or answers.loop is not loop:
            answers = self._answers = _Answers(loop)
        return answers

    def _submit(self, call: "_Call") -> bool:
        """Hand a call in; return whether a thread takes the call at once."""
        self._queue.put(call)
        if self._idle.acquire(blocking=False):
            return True
        with self._lock:
            return self._start_one()

    def _start_one(self) -> bool:
        """Start a thread, where there is room. Call it with the lock."""
        if len(self._alive) >= self._most():
            return False
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._alive.add(thread)
        thread.start()
        return True

    def _most(self) -> int:
        """Return how many threads there may be now."""
        return self._count + min(len(self._stuck), self._spare)

    def _work(self) -> None:
        try:
            while (call := self._next()) is not None:
                call.run()
                if not self._has_room(call):
                    return
        finally:
            connections.close_all()
            with self._lock:
                self._alive.discard(threading.current_thread())

    def _next(self) -> "_Call | None":
        try:
            return self._queue.get_nowait()
        except Empty:
            self._idle.release()
            return self._queue.get()

    def _has_room(self, call: "_Call") -> bool:
        """Tell whether the thread is still needed, or has got a replacement."""
        with self._lock:
            call.is_over = True
            if not call.is_abandoned:
                return True
            self._stuck.remove(call)
            is_needed = len(self._alive) <= self._most()
            if not is_needed:
                self._alive.discard(threading.current_thread())
            return is_needed

    def _abandon(self, call: "_Call") -> None:
        """Give a call up; where the call runs, the thread is stuck."""
        call.answer.cancel()
        with self._lock:
            if call.has_begun and not call.is_over and not call.is_abandoned:
                call.is_abandoned = True
                self._stuck.append(call)
                if not self._queue.empty():
                    self._start_one()


def close_all(pools: Iterable[Threads], *, timeout: float) -> None:
    """Close several pools, all within so many seconds."""
    up_at = time.monotonic() + timeout
    for thread in [thread for pool in pools for thread in pool.end()]:
        thread.join(max(0.0, up_at - time.monotonic()))


class _Call:
    """Hold a function on the way through a thread."""

    def __init__(self, answers: "_Answers", function: Callable[[], Any]) -> None:
        self.answers = answers
        self.answer: asyncio.Future[Any] = answers.loop.create_future()
        self.begins: asyncio.Future[None] | None = None
        self.step = current_step.get()
        self.has_begun = self.is_over = self.is_abandoned = False
        self._function = function

    def run(self) -> None:
        self.has_begun = True  # before the look: whoever cancels it now takes it for begun
        if self.answer.cancelled():
            return
        if self.begins is not None:
            self.answers.add(self.begins, None, None)
        _answer(self._function, self.answer, self.answers)


class _Answers:
    """Bring answers into the event loop; a burst of answers wakes the loop once.

    The loop's own `run_in_executor` wakes the loop for each answer, with two futures and two
    callbacks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._ready: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._is_woken = False

    def add(self, answer: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
        """Queue an answer for the loop; to be called in any thread."""
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
    """Call a function, and close connections that broke meanwhile: the next call has new ones."""
    try:
        return call()
    except (asyncio.CancelledError, StopIteration) as error:
        # Handed on as they are, the first would look like a cancelled task, and the second cannot
        # pass through a future at all: the caller would wait for ever.
        raise RuntimeError(f"{type(error).__name__} was raised: {error_text(error)}") from error
    finally:
        heal()


def heal() -> None:
    """Close the broken connections of this thread, so that the next query has a new connection."""
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred and not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
