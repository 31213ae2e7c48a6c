"""Check a saga class at start-up: what could not be run safely is refused in a sentence."""

import inspect
import math
from collections.abc import Callable
from datetime import timedelta
from itertools import combinations
from typing import Any

from sagaz import Saga as SagaClass

from saga_runtime.text import describe_error, is_storable
from sagas.definition.hidden_methods import check_attributes, check_overrides, marks_of
from sagas.definition.identity import LONGEST_NAME, check_name
from sagas.definition.unsupported_features import check_declared
from sagas.errors import SagaDefinitionError

LONGEST_DEADLINE = timedelta(days=36_500)
LONGEST_TIMEOUT = 2_000_000  # seconds; PostgreSQL's limit for a statement is 2**31 milliseconds


def made(saga_class: type[SagaClass]) -> SagaClass:
    """Make an instance, as a worker does for each run.

    Raises:
        SagaDefinitionError: the class cannot be made without arguments, or hides a method.
    """
    check_overrides(saga_class)
    for name in dir(saga_class):
        meta = marks_of(getattr(saga_class, name, None)).get("_saga_step_meta")
        if meta is not None and type(meta.depends_on) is not list:
            raise SagaDefinitionError(
                f"{saga_class.__qualname__}.{name}: depends_on is {meta.depends_on!r}: use a list "
                "of names of steps"
            )
    try:
        return saga_class()
    except SagaDefinitionError:
        raise
    except Exception as error:
        raise SagaDefinitionError(
            f"{saga_class.__qualname__}() fails: {describe_error(error)}. A worker makes an "
            "instance for each run, without arguments: give each argument of __init__ a default, "
            "and keep what a run needs in its context"
        ) from error


def is_base(saga_class: type[SagaClass]) -> bool:
    """Tell whether a class is there for others to derive from, and is no saga of its own.

    It is one where it says `abstract = True` itself, has abstract methods, or has no steps and is
    derived from.

    Raises:
        SagaDefinitionError: it is derived from, and nothing says which it is.
    """
    own = vars(saga_class)
    if own.get("abstract") is True or inspect.isabstract(saga_class):
        return True
    if not saga_class.__subclasses__():
        return False
    members = [marks_of(getattr(saga_class, name, None)) for name in dir(saga_class)]
    if not any("_saga_step_meta" in marks for marks in members):
        return True
    if "saga_name" not in own and not any("_trigger_metadata" in marks for marks in members):
        raise SagaDefinitionError(
            f"{saga_class.__qualname__} has steps, and other sagas derive from it: say "
            "`abstract = True` in it where it is only their base, or give it a saga_name where it "
            "is a saga too"
        )
    return False


def name_of(saga_class: type[SagaClass]) -> str:
    """Return a saga's name: its `saga_name`, or that of its class."""
    return saga_class.saga_name or saga_class.__name__


def check(saga: SagaClass) -> None:
    """Refuse a saga that cannot be run safely.

    Raises:
        SagaDefinitionError: its text says what to change.
    """
    saga_class = type(saga)
    check_name(name_of(saga_class), where=f"{saga_class.__qualname__}.saga_name")
    check_attributes(saga)
    check_declared(saga)
    steps = saga.get_steps()
    if not steps:
        raise SagaDefinitionError(
            f"{saga_class.__qualname__} has no steps: give it methods with @action(…), or say "
            "`abstract = True` in it where it is a base of others"
        )
    _check_steps(saga_class, [step.step_id for step in steps], steps)
    _check_order(saga)
    _check_roots(saga, steps)
    _check_compensations(saga, [step.step_id for step in steps])
    for step in steps:
        _check_step(f"{saga_class.__qualname__}.{step.step_id}", step)


def checked_version(saga_class: type[SagaClass]) -> int:
    """Return the class's version.

    Raises:
        SagaDefinitionError: it is no whole number from 1 on.
    """
    version = getattr(saga_class, "version", 1)
    if type(version) is not int or version < 1:
        raise SagaDefinitionError(
            f"{saga_class.__qualname__}.version is {version!r}: use 1, 2, 3 …"
        )
    return version


def checked_deadline(saga_class: type[SagaClass]) -> timedelta | None:
    """Return how long a saga of the class may take.

    Raises:
        SagaDefinitionError: it is no timedelta, or no moment can be counted with it.
    """
    deadline = getattr(saga_class, "deadline", None)
    if deadline is None:
        return None
    if not isinstance(deadline, timedelta) or not timedelta(0) < deadline <= LONGEST_DEADLINE:
        raise SagaDefinitionError(
            f"{saga_class.__qualname__}.deadline is {deadline!r}: use a timedelta above zero, of "
            f"{LONGEST_DEADLINE.days:,} days at most, or leave it out where there is none"
        )
    return deadline


def checked_most(saga_class: type[SagaClass]) -> int | None:
    """Return `max_concurrent` of the class's triggers; of several, the lowest.

    Raises:
        SagaDefinitionError: one is no whole number from 1 on.
    """
    methods = (getattr(saga_class, name) for name in dir(saga_class))
    metadata = [marks_of(method).get("_trigger_metadata") for method in methods]
    limits = [each.max_concurrent for each in metadata if each and each.max_concurrent is not None]
    if any(type(limit) is not int or limit < 1 for limit in limits):
        raise SagaDefinitionError(
            f"{saga_class.__qualname__}: max_concurrent must be 1 or more, or left out"
        )
    return min(limits, default=None)


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


def _check_steps(saga_class: type[SagaClass], names: list[str], steps: list[Any]) -> None:
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
    """sagaz runs steps that depend on nothing side by side. Where a later step waits for both, that
    is meant; where none does, somebody has left out `depends_on`."""
    if getattr(saga, "parallel_roots", False):
        return
    behind = {step.step_id: set(step.depends_on) for step in steps}
    for level in saga.get_execution_order():
        for step in level:
            behind[step.step_id] |= {far for near in step.depends_on for far in behind[near]}
    roots = [step.step_id for step in steps if not step.depends_on]
    for first, second in combinations(sorted(roots), 2):
        if not any({first, second} <= before for before in behind.values()):
            raise SagaDefinitionError(
                f"{type(saga).__qualname__}: {first!r} and {second!r} would run side by side, and "
                "no step waits for both: give one of them depends_on=[…], or say "
                "`parallel_roots = True` in the class where it is meant"
            )


def _check_compensations(saga: SagaClass, names: list[str]) -> None:
    """sagaz passes over a compensation that is for no step, and takes the last of several."""
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
