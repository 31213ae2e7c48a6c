"""A step's context: it gets a copy of its own, by way of the journal's encoder, and hands back what
it changed there and what it returned."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from sagas import codec
from sagas.errors import UnstorableValue


def changes(function: Callable[[dict[str, Any]], Any], context: dict[str, Any]) -> dict[str, Any]:
    """Call a step with a context of its own; returns what it changed there and what it returned."""
    own, before = _own(context)
    try:
        result = function(own)
    except Exception:
        raise
    except BaseException as error:
        raise _as_failure(error) from error
    if inspect.iscoroutine(result):
        result.close()
        raise UnstorableValue("the step returned a coroutine: declare it `async def`")
    return _merged(result, own, before)


async def changes_of_async(
    function: Callable[[dict[str, Any]], Awaitable[Any]], context: dict[str, Any]
) -> dict[str, Any]:
    """The same for an async step; a CancelledError of its own is a failure like any other."""
    own, before = _own(context)
    try:
        result = await function(own)
    except (Exception, GeneratorExit):
        raise
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        raise _as_failure(error) from error
    return _merged(result, own, before)


def _as_failure(error: BaseException) -> RuntimeError:
    """sagaz takes what is no Exception for success, and would run the next step."""
    return RuntimeError(f"the step raised {type(error).__name__}: {error}")


def _own(context: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    before = {key: codec.encode(value) for key, value in context.items()}
    return {key: codec.decode(text) for key, text in before.items()}, before


def _merged(result: Any, own: dict[str, Any], before: dict[str, str]) -> dict[str, Any]:
    changed = {key: value for key, value in own.items() if codec.encode(value) != before.get(key)}
    return changed | (dict(result) if isinstance(result, dict) else {})


def visible(context: dict[str, Any]) -> dict[str, Any]:
    """The context without what sagaz keeps in it for itself."""
    return {key: value for key, value in context.items() if not key.startswith("__")}
