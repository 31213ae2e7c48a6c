"""Call steps: each gets a copy of the context, and hands back changes and a result.

The copy goes through the journal's encoder: a step sees the same values as behind a crash.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from saga_runtime.allowance import Allowance
from saga_runtime.text import shown
from sagas.definition.current_step import current_allowance
from sagas.errors import UnstorableValue
from sagas.failures import raisable
from sagas.journal import codec
from sagas.run.own_task import call_apart
from sagas.run.timing import CANCEL_GRACE


def call_local(
    function: Callable[[dict[str, Any]], Any], context: dict[str, Any], *, undoes: bool = False
) -> dict[str, Any]:
    """Call a local step with a copy of the context.

    Args:
        function: the step, or the compensation.
        context: of the saga; not changed.
        undoes: the step is a compensation. A result other than a dict is ignored, as in sagaz.

    Returns:
        The step's changes of the copy, and the step's result.

    Raises:
        UnstorableValue: the journal cannot keep a value.
        Exception: from the step.
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
    cancel_grace: float = CANCEL_GRACE,
) -> dict[str, Any]:
    """Call an external step with a copy of the context, in a task apart.

    Args:
        function: the step, or the compensation.
        context: of the saga; not changed.
        undoes: the step is a compensation.
        allowance: time for the step; by default unlimited.
        cancel_grace: seconds for the step to end after each cancel.

    Returns:
        The step's changes of the copy, and the step's result.

    Raises:
        UnstorableValue: the journal cannot keep a value.
        TimeoutError: the time was up.
        Exception: from the step.
    """
    # As it was: a step beside this one may change the shared context during the call.
    context = dict(context)
    own, before = _own(context)
    # For call_in_thread(): its wait for a thread takes none of the step's time.
    allowance = allowance or Allowance(None)
    token = current_allowance.set(allowance)
    try:
        result = await call_apart(function, own, allowance=allowance, cancel_grace=cancel_grace)
    finally:
        current_allowance.reset(token)
    return _merged(_returned(result, undoes=undoes), own, before, context)


def _returned(result: Any, *, undoes: bool) -> dict[str, Any]:
    """Return a step's result as a dict.

    Raises:
        UnstorableValue: no later step would see the result, or the result has never been awaited.
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
    # sagaz passes it over too, and an undone saga has no later step to miss it.
    if undoes:
        return {}
    raise UnstorableValue(
        f"the step returned {shown(result)} of type {kind}, which no later step would see: "
        "return a dict, or nothing"
    )


_ATOMS = (str, int, bool, type(None))  # not to be changed, and kept by the journal as they are


def _own(context: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Copy a context; return the copy, and the journal's text of each mutable value."""
    before = {k: codec.encode(value) for k, value in context.items() if type(value) not in _ATOMS}
    own = {k: codec.decode(before[k]) if k in before else v for k, v in context.items()}
    return own, before


def _merged(
    result: dict[str, Any], own: dict[str, Any], before: dict[str, str], context: dict[str, Any]
) -> dict[str, Any]:
    """Merge a step's result with the step's changes of the copy.

    Args:
        result: returned by the step.
        own: the copy, after the call.
        before: the journal's text of the mutable values, before the call.
        context: the original.
    """
    # Compared as the journal has them, not by `==`: True equals 1, and a Decimal 1.0 equals 1.00.
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
    """Return the context without the keys of sagaz, which are named after steps."""
    own = {key.format(step) for step in steps for key in _SAGAZ_KEYS}
    return {key: value for key, value in context.items() if key not in own}


_SAGAZ_KEYS = ("__{}_completed", "__{}_compensated", "__{}_compensation_error")
