"""Await foreign code in a separate task.

A step may cancel "its own task": async-timeout 4 does so from a timer, catches the CancelledError
and never takes the cancel back. In the run's own task the cancel would end whatever the run awaits
next, and would look like the end of the worker. In a separate task only the call ends.
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
from sagas.run.timing import CANCEL_GRACE

logger = get_logger(__name__)


@dataclass(slots=True)
class _End:
    """Keep how a call has ended.

    The result of the task does not tell: a cancel behind the last `await` takes the result's place.

    Attributes:
        result: returned by the call.
        has_returned: whether the call has returned.
        error: raised by the call.
    """

    result: Any = None
    has_returned: bool = False
    error: BaseException | None = None


async def call_apart(
    function: Callable[..., Any],
    *arguments: Any,
    allowance: Allowance | None = None,
    cancel_grace: float = CANCEL_GRACE,
) -> Any:
    """Call a function in a separate task, and await the result where the result can be awaited.

    Args:
        function: foreign code, `def` or `async def`.
        arguments: of the function.
        allowance: when used up, the call is cancelled, and its end awaited for a while.
        cancel_grace: the seconds of the while, after each of two cancels.

    Returns:
        The function's result.

    Raises:
        TimeoutError: the time was up. A call that ignores the cancels is abandoned: a late result
            is dropped, and a late effect is in doubt, as after any timeout.
        Exception: from the function; a RuntimeError in the place of a BaseException.
        asyncio.CancelledError: the event loop ends; never because of the function.
    """
    end = _End()
    task = asyncio.create_task(_note(function, arguments, end))
    try:
        running = not await _ends_within(task, allowance or Allowance(None))
        if running and not await _heeds_cancel(task, cancel_grace):
            _abandon(task, getattr(function, "__qualname__", repr(type(function))))
            raise TimeoutError
    # Not the call's own, which stays in its task: the event loop ends, and the call with it.
    except asyncio.CancelledError:
        task.cancel()
        raise
    if end.has_returned:
        return end.result
    error = end.error or asyncio.CancelledError("before it began")
    # The cancel that ended the call was ours, for the timeout.
    if running and issubclass(type(error), asyncio.CancelledError):
        raise TimeoutError
    failure = raisable(error)
    if failure is error:
        raise failure
    raise failure from error


async def _ends_within(task: "asyncio.Task[None]", allowance: Allowance) -> bool:
    """Wait for a task until the time is up; tell whether the task has ended."""
    # In rounds: the allowance stands still while the call waits for a thread.
    while True:
        await _wait(task, allowance.pause())
        left = allowance.left()
        if task.done() or (left is not None and left <= 0):
            return task.done()


async def _wait(task: "asyncio.Task[None]", seconds: float | None) -> None:
    """Wait for a task as `asyncio.wait([task])` does, which takes several times as long."""
    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    task.add_done_callback(wake)
    timer = None if seconds is None else loop.call_later(seconds, wake)
    try:
        await woken
    finally:
        task.remove_done_callback(wake)
        if timer is not None:
            timer.cancel()


async def _heeds_cancel(task: "asyncio.Task[None]", grace: float) -> bool:
    """Cancel a task, twice if need be, and tell whether the task has ended.

    The first cancel may have hit a block that catches everything.
    """
    for _ in range(2):
        task.cancel()
        done, _pending = await asyncio.wait([task], timeout=grace)
        if done:
            return True
    return False


def _abandon(task: "asyncio.Task[None]", name: str) -> None:
    logger.error(
        "%s: %s does not heed that it is cancelled: its call is left behind",
        *(current_step.get(), name),
    )
    abandoned = current_abandoned_calls.get(None)
    if abandoned is not None:
        abandoned.add(task)


async def _note(function: Callable[..., Any], arguments: tuple[Any, ...], end: _End) -> None:
    """Note how a call ends; no exception leaves the task.

    SystemExit and KeyboardInterrupt would end the event loop.
    """
    try:
        result = function(*arguments)
        end.result = await result if inspect.isawaitable(result) else result
        end.has_returned = True
    except BaseException as error:  # noqa: BLE001 - whatever it raises is its end
        end.error = error
