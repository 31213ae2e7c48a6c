import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import connections

P = ParamSpec("P")
R = TypeVar("R")


class Threads:
    """A few threads for the ORM, each with a database connection that it keeps and closes."""

    def __init__(self, count: int, *, name: str) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it in one of the threads, with the caller's context variables."""
        call = partial(copy_context().run, partial(function, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._pool, _healing, call)

    def close(self, *, timeout: float = 5.0) -> None:
        """Wait for what runs, close each thread's connections, end the threads."""
        together = threading.Barrier(self._count)
        closing = [self._pool.submit(_close, together, timeout) for _ in range(self._count)]
        wait(closing, timeout)
        self._pool.shutdown(wait=False, cancel_futures=True)


def _healing(call: Callable[[], R]) -> R:
    """Call it; a connection that broke meanwhile is closed, so that the next call has a new one."""
    try:
        return call()
    except (asyncio.CancelledError, StopIteration) as error:
        # Handed on as they are, the first would look like a cancelled task, and the second cannot
        # pass through a future at all: the caller would wait for ever.
        raise RuntimeError(f"{type(error).__name__} was raised: {error}") from error
    finally:
        for connection in connections.all(initialized_only=True):
            if connection.errors_occurred and not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()


def _close(together: threading.Barrier, timeout: float) -> None:
    connections.close_all()
    try:
        together.wait(timeout)
    except threading.BrokenBarrierError:
        return
