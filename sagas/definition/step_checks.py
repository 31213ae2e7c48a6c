"""Check a saga's steps: names, order, limits and compensations."""

import inspect
import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

from sagaz import Saga as SagaClass

from saga_runtime.text import is_storable
from sagas.definition.identity import LONGEST_NAME
from sagas.errors import SagaDefinitionError

LONGEST_TIMEOUT = 2_000_000
"""Seconds. PostgreSQL's limit for a statement is 2**31 milliseconds."""


def check_steps(saga: SagaClass) -> None:
    """Refuse a saga with steps that cannot be run, or undone, as written.

    Raises:
        SagaDefinitionError: a step is wrong; the text says what to change.
    """
    saga_class = type(saga)
    steps = saga.get_steps()
    if not steps:
        raise SagaDefinitionError(
            f"{saga_class.__qualname__} has no steps: give it methods with @action(…), or say "
            "`abstract = True` in it where it is a base of others"
        )
    names = [step.step_id for step in steps]
    _check_dependencies(saga_class, names, steps)
    _check_order(saga)
    _check_roots(saga, steps)
    _check_compensations(saga, names)
    for step in steps:
        _check_step(f"{saga_class.__qualname__}.{step.step_id}", step)


def _check_step(where: str, step: Any) -> None:
    if not step.step_id or not is_storable(step.step_id, longest=LONGEST_NAME):
        raise SagaDefinitionError(
            f"{where}: a step's name is a text of 1 to {LONGEST_NAME} characters, without NUL"
        )
    _check_function(where, step.forward_fn)
    _check_limits(where, step.max_retries, step.timeout_seconds)
    if step.compensation_fn is None:
        return
    meta = getattr(step.compensation_fn, "_saga_compensation_meta", None)
    where = f"what undoes {where}"
    _check_function(where, step.compensation_fn)
    _check_limits(where, meta.max_retries if meta else 0, step.compensation_timeout_seconds)


def _check_function(where: str, function: Callable[..., Any]) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise SagaDefinitionError(
            f"{where} has a `yield`: nothing of it would ever run. Write it with `return`"
        )


def _check_limits(where: str, retries: object, timeout: object) -> None:
    if type(retries) is not int or retries < 0:
        raise SagaDefinitionError(f"{where}: max_retries is {retries!r}: use 0, 1, 2 …")
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if timeout is not None and not (
        is_number and math.isfinite(timeout) and 0 < timeout <= LONGEST_TIMEOUT  # type: ignore[arg-type,operator]
    ):
        raise SagaDefinitionError(
            f"{where}: timeout_seconds is {timeout!r}: use seconds above zero, up to "
            f"{LONGEST_TIMEOUT:,}, or None for no limit"
        )


def _check_dependencies(saga_class: type[SagaClass], names: list[str], steps: list[Any]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SagaDefinitionError(f"{saga_class.__qualname__} has two steps named {twice[0]!r}")
    for step in steps:
        unknown = sorted(set(step.depends_on) - set(names))
        if unknown:
            raise SagaDefinitionError(
                f"{saga_class.__qualname__}.{step.step_id} depends on {unknown[0]!r}, "
                f"which is none of its steps: {', '.join(names)}"
            )


def _check_order(saga: SagaClass) -> None:
    try:
        saga.get_execution_order()
    except ValueError as error:
        raise SagaDefinitionError(
            f"the steps of {type(saga).__qualname__} depend on each other in a circle"
        ) from error


def _check_roots(saga: SagaClass, steps: list[Any]) -> None:
    """Refuse two first steps without a later step that waits for both.

    sagaz runs steps side by side that depend on nothing. Two such steps are meant where a later
    step waits for both; otherwise `depends_on` has been forgotten.
    """
    if getattr(saga, "parallel_roots", False):
        return
    # By step, all steps before it: level by level, what its direct dependencies have before them.
    behind = {step.step_id: set(step.depends_on) for step in steps}
    for level in saga.get_execution_order():
        for step in level:
            behind[step.step_id] |= {far for near in step.depends_on for far in behind[near]}
    # In the order of names, so that the error is the same at every start.
    roots = [step.step_id for step in steps if not step.depends_on]
    for first, second in combinations(sorted(roots), 2):
        if not any({first, second} <= before for before in behind.values()):
            raise SagaDefinitionError(
                f"{type(saga).__qualname__}: {first!r} and {second!r} would run side by side, and "
                "no step waits for both: give one of them depends_on=[…], or say "
                "`parallel_roots = True` in the class where it is meant"
            )


def _check_compensations(saga: SagaClass, names: list[str]) -> None:
    """Refuse compensations that sagaz would pass over: for no step, or for a step a second time."""
    undone: dict[str, str] = {}
    for attribute in dir(type(saga)):
        method = getattr(type(saga), attribute)
        meta = getattr(method, "_saga_compensation_meta", None)
        where = f"{type(saga).__qualname__}.{attribute}"
        if attribute.startswith("_") and (meta or hasattr(method, "_saga_step_meta")):
            raise SagaDefinitionError(f"{where}: sagaz passes over names that begin with '_'")
        if meta is None:
            continue
        if meta.for_step not in names:
            raise SagaDefinitionError(
                f"{where} undoes {meta.for_step!r}, which is none of its steps: {', '.join(names)}"
            )
        twin = undone.setdefault(meta.for_step, where)
        if twin != where:
            raise SagaDefinitionError(f"{where} and {twin} both undo {meta.for_step!r}")
