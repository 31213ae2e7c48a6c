"""A step's context: it gets a copy of its own, by way of the journal's encoder, and hands back what
it changed there and what it returned."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from saga_runtime.allowance import Allowance
from saga_runtime.text import shown
from sagas.definition.current_step import current_allowance
from sagas.errors import UnstorableValue
from sagas.failures import raisable
from sagas.journal import codec
from sagas.run.own_task import apart


def call_local(
    function: Callable[[dict[str, Any]], Any], context: dict[str, Any], *, undoes: bool = False
) -> dict[str, Any]:
    """Call a step with a context of its own; returns what it changed there and what it returned.

    Args:
        undoes: it is a compensation. A result of it that is no dict is passed over, as in sagaz.
    """
    own, before = _own(context)
    try:
        result = function(own)
    except BaseException as error:
        failure = raisable(error)
        if failure is error:
            raise
        raise failure from error
    return _merged(_returned(result, undoes=undoes), own, before, context)


async def call_external(
    function: Callable[[dict[str, Any]], Awaitable[Any]],
    context: dict[str, Any],
    *,
    undoes: bool = False,
    allowance: Allowance | None = None,
) -> dict[str, Any]:
    """The same for an async step, called apart, within this allowance."""
    context = dict(context)  # as it was: a step beside this one may change the shared one meanwhile
    own, before = _own(context)
    allowance = allowance or Allowance(None)
    token = current_allowance.set(allowance)
    try:
        result = await apart(function, own, allowance=allowance)
    finally:
        current_allowance.reset(token)
    return _merged(_returned(result, undoes=undoes), own, before, context)


def _returned(result: Any, *, undoes: bool) -> dict[str, Any]:
    """Return what a step has returned, as a dict.

    Raises:
        UnstorableValue: no later step would see it, or what it stands for has never run.
    """
    if result is None or isinstance(result, dict):
        return result or {}
    kind = type(result).__name__
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()
        raise UnstorableValue(
            f"the step returned a {kind}, which nobody has run: declare it `async def`, and await "
            "what it calls"
        )
    if undoes:
        return {}
    raise UnstorableValue(
        f"the step returned {shown(result)} of type {kind}, which no later step would see: "
        "return a dict, or nothing"
    )


_ATOMS = (str, int, bool, type(None))  # not to be changed, and kept by the journal as they are


def _own(context: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A copy, and the journal's text of what in it can be changed."""
    before = {k: codec.encode(value) for k, value in context.items() if type(value) not in _ATOMS}
    own = {k: codec.decode(before[k]) if k in before else v for k, v in context.items()}
    return own, before


def _merged(
    result: dict[str, Any], own: dict[str, Any], before: dict[str, str], context: dict[str, Any]
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
    return changed | dict(result)


def visible(context: dict[str, Any], steps: Iterable[str]) -> dict[str, Any]:
    """Return the context without what sagaz keeps in it for itself, which it names after steps."""
    own = {key.format(step) for step in steps for key in _SAGAZ_KEYS}
    return {key: value for key, value in context.items() if key not in own}


_SAGAZ_KEYS = ("__{}_completed", "__{}_compensated", "__{}_compensation_error")
