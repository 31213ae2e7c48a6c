"""Awaits foreign code in a task of its own.

A step may cancel "its own task": async-timeout 4 does so from a timer, catches the CancelledError
and never takes the cancel back. In the run's own task that would end whatever the run awaits next,
and nobody could tell it from the end of the worker. Here it ends this one call.
"""

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sagas.allowance import Allowance
from sagas.failures import raisable


@dataclass(slots=True)
class _End:
    """How a call has ended. The task's own result does not tell: a cancel that comes behind the
    last `await` takes its place."""

    result: Any = None
    has_returned: bool = False
    error: BaseException | None = None


async def apart(
    function: Callable[..., Any],
    *arguments: Any,
    allowance: Allowance | None = None,
) -> Any:
    """Call a function, await what it returns if that can be awaited, and hand out the result.

    Args:
        function: foreign code, `def` or `async def`.
        allowance: when it is used up the call is cancelled, and its end is awaited.

    Raises:
        TimeoutError: the time was up.
        Exception: what it raised, or a RuntimeError that tells of what is no Exception.
        asyncio.CancelledError: the event loop ends; never because of what the function does.
    """
    end = _End()
    task = asyncio.create_task(_note(function, arguments, end))
    try:
        running = not await _ends_within(task, allowance or Allowance(None))
        if running:
            task.cancel()
            await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        raise
    if end.has_returned:
        return end.result
    error = end.error or asyncio.CancelledError("before it began")
    if running and issubclass(type(error), asyncio.CancelledError):
        raise TimeoutError
    failure = raisable(error)
    if failure is error:
        raise failure
    raise failure from error


async def _ends_within(task: "asyncio.Task[None]", allowance: Allowance) -> bool:
    while True:
        done, _ = await asyncio.wait([task], timeout=allowance.pause())
        left = allowance.left()
        if done or (left is not None and left <= 0):
            return bool(done)


async def _note(function: Callable[..., Any], arguments: tuple[Any, ...], end: _End) -> None:
    """Nothing leaves this task: SystemExit and KeyboardInterrupt would end the event loop."""
    try:
        result = function(*arguments)
        end.result = await result if inspect.isawaitable(result) else result
        end.has_returned = True
    except BaseException as error:  # noqa: BLE001 - whatever it raises is its end
        end.error = error
