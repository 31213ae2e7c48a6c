"""Run an event loop with an end, even where foreign code has none."""

import asyncio
import threading
from collections.abc import Awaitable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

R = TypeVar("R")

LAST_SECONDS = 5.0


def run_loop(main: Coroutine[Any, Any, R], *, last_seconds: float = LAST_SECONDS) -> R:
    """Run a coroutine in a new event loop, and close the loop.

    `asyncio.run` waits without end for each cancelled task, each generator and each thread of
    `asyncio.to_thread`: a hanging call, or a step that catches every CancelledError, would hold the
    worker's end up for ever. Here such a task is abandoned.

    Args:
        main: the coroutine.
        last_seconds: how long each may take at the loop's end: tasks to heed a cancel,
            asynchronous generators to close, functions in `asyncio.to_thread` to come back.

    Returns:
        The coroutine's result.
    """
    loop = asyncio.new_event_loop()
    executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
    try:
        asyncio.set_event_loop(loop)
        loop.set_default_executor(executor)
        return loop.run_until_complete(main)
    finally:
        try:
            _cancel_all(loop, last_seconds)
            loop.run_until_complete(_within(last_seconds, loop.shutdown_asyncgens()))
        finally:
            _shut_down(executor, last_seconds)
            asyncio.set_event_loop(None)
            loop.close()


def _cancel_all(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=seconds))


async def _within(seconds: float, closing: Awaitable[None]) -> None:
    # `asyncio.wait_for` would wait for what it has cancelled.
    await asyncio.wait([asyncio.ensure_future(closing)], timeout=seconds)


def _shut_down(executor: ThreadPoolExecutor, seconds: float) -> None:
    """Let no call begin any more, and wait a moment for running calls."""
    executor.shutdown(wait=False, cancel_futures=True)
    waiting = threading.Thread(target=executor.shutdown, name="executor-end", daemon=True)
    waiting.start()
    waiting.join(seconds)
