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

from saga_runtime.abandoned_calls import current_abandoned_calls, current_step
from saga_runtime.allowance import Allowance
from saga_runtime.logs import get_logger
from sagas.failures import raisable

logger = get_logger(__name__)

GRACE = 5.0
"""Seconds that a call may take to end after each of the two cancels that it gets."""


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
        allowance: when it is used up the call is cancelled, and its end is awaited for a while.

    Raises:
        TimeoutError: the time was up. A call that does not heed its cancel is left behind: what it
            still returns is dropped, what it still does is as in doubt as after any timeout.
        Exception: what it raised, or a RuntimeError that tells of what is no Exception.
        asyncio.CancelledError: the event loop ends; never because of what the function does.
    """
    end = _End()
    task = asyncio.create_task(_note(function, arguments, end))
    try:
        running = not await _ends_within(task, allowance or Allowance(None))
        if running and not await _heeds_cancel(task):
            _leave_behind(task, getattr(function, "__qualname__", repr(type(function))))
            raise TimeoutError
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


async def _heeds_cancel(task: "asyncio.Task[None]") -> bool:
    """Cancel, and once more: the first may have come into a block that catches everything."""
    for _ in range(2):
        task.cancel()
        done, _pending = await asyncio.wait([task], timeout=GRACE)
        if done:
            return True
    return False


def _leave_behind(task: "asyncio.Task[None]", name: str) -> None:
    logger.error(
        "%s: %s does not heed that it is cancelled: its call is left behind",
        *(current_step.get(), name),
    )
    left = current_abandoned_calls.get(None)
    if left is not None:
        left.add(task)


async def _note(function: Callable[..., Any], arguments: tuple[Any, ...], end: _End) -> None:
    """Nothing leaves this task: SystemExit and KeyboardInterrupt would end the event loop."""
    try:
        result = function(*arguments)
        end.result = await result if inspect.isawaitable(result) else result
        end.has_returned = True
    except BaseException as error:  # noqa: BLE001 - whatever it raises is its end
        end.error = error
