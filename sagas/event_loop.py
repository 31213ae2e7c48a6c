"""Runs an event loop that ends also where foreign code does not."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")

LAST_SECONDS = 5.0
"""Seconds that tasks may take to heed the cancel at the loop's end."""


def run_loop(main: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine in an event loop of its own, and close the loop.

    Like `asyncio.run`, which waits without end for each task that was cancelled: a step that
    catches every CancelledError would hold the worker's end up for ever. Here such a task is left.

    Returns:
        What the coroutine returns.
    """
    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        try:
            _cancel_all(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=LAST_SECONDS))
