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
    return _merged(result, own, before, context)


async def changes_of_async(
    function: Callable[[dict[str, Any]], Awaitable[Any]], context: dict[str, Any]
) -> dict[str, Any]:
    """The same for an async step; a CancelledError of its own is a failure like any other."""
    context = dict(context)  # as it was: a step beside this one may change the shared one meanwhile
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
    return _merged(result, own, before, context)


def _as_failure(error: BaseException) -> RuntimeError:
    """sagaz takes what is no Exception for success, and would run the next step."""
    return RuntimeError(f"the step raised {type(error).__name__}: {error}")


_ATOMS = (str, int, bool, type(None))  # not to be changed, and kept by the journal as they are


def _own(context: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A copy, and the journal's text of what in it can be changed."""
    before = {k: codec.encode(value) for k, value in context.items() if type(value) not in _ATOMS}
    own = {k: codec.decode(before[k]) if k in before else v for k, v in context.items()}
    return own, before


def _merged(
    result: Any, own: dict[str, Any], before: dict[str, str], context: dict[str, Any]
) -> dict[str, Any]:
    changed = {
        key: value
        for key, value in own.items()
        if (
            codec.encode(value) != before[key]
            if key in before
            else key not in context or value is not context[key]
        )
    }
    return changed | (dict(result) if isinstance(result, dict) else {})


def visible(context: dict[str, Any]) -> dict[str, Any]:
    """The context without what sagaz keeps in it for itself."""
    return {key: value for key, value in context.items() if not key.startswith("__")}
