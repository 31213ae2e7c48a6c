"""Refuse steps, compensations and triggers that are hidden from sagaz.

A method may be hidden by a subclass, by a second decorator, or by an attribute of the instance.
sagaz looks for the mark that `@action` and the like leave on a function: a method without the mark
is no step to sagaz, and a compensation without the mark undoes nothing.
"""

from collections.abc import Iterator
from functools import partial, partialmethod
from types import FunctionType
from typing import Any

from sagaz import Saga as SagaClass

from sagas.errors import SagaDefinitionError

_MARKS = {
    "_saga_step_meta": lambda meta: f'@action("{meta.name}")',
    "_saga_compensation_meta": lambda meta: f'@compensate("{meta.for_step}")',
    "_trigger_metadata": lambda meta: f'@trigger(source="{meta.source}", …)',
}
"""The marks that sagaz's decorators leave on a function, and how each decorator is written."""


def check_overrides(saga_class: type[SagaClass]) -> None:
    """Refuse a class in which a step, a compensation or a trigger is hidden from sagaz.

    Raises:
        SagaDefinitionError: a method is hidden; the text names the method, and says what to write.
    """
    for name, found in _members(saga_class).items():
        _check_override(name, found)
        for owner, member in found:
            _check_hidden(f"{owner.__qualname__}.{name}", member)


def check_attributes(saga: SagaClass) -> None:
    """Refuse a saga in which an attribute hides a step, a compensation or a trigger.

    Raises:
        SagaDefinitionError: an attribute does; the text names the attribute.
    """
    saga_class = type(saga)
    for name in vars(saga):
        if marks_of(getattr(saga_class, name, None)):
            raise SagaDefinitionError(
                f"{saga_class.__qualname__}: its __init__ sets self.{name}, which hides the method "
                f"{name}: give one of them another name"
            )


def marks_of(member: Any) -> dict[str, Any]:
    """Return the marks that sagaz's decorators have left on a class's member, by name."""
    kept = getattr(getattr(member, "__func__", member), "__dict__", {})
    return {mark: kept[mark] for mark in _MARKS if mark in kept}


def _members(saga_class: type) -> dict[str, list[tuple[type, Any]]]:
    """List the definitions of each name in a class and its bases, the nearest first."""
    found: dict[str, list[tuple[type, Any]]] = {}
    for owner in saga_class.__mro__:
        if owner is not SagaClass and owner is not object:
            for name, member in vars(owner).items():
                found.setdefault(name, []).append((owner, member))
    return found


def _check_override(name: str, found: list[tuple[type, Any]]) -> None:
    (owner, member), *overridden = found
    own = marks_of(member)
    for base, hidden in overridden:
        for mark, meta in marks_of(hidden).items():
            # An override with the same decorator replaces the method, as a person means it to.
            if mark in own:
                continue
            decorator = _MARKS[mark](meta)
            where = f"{owner.__qualname__}.{name} overrides {base.__qualname__}.{name}, which has "
            if callable(member) or isinstance(member, staticmethod | classmethod):
                raise SagaDefinitionError(
                    f"{where}{decorator}: without the decorator sagaz would leave it out. Write "
                    f"{decorator} above {owner.__qualname__}.{name} too"
                )
            raise SagaDefinitionError(
                f"{where}{decorator}, by a {type(member).__name__}: sagaz would leave it out. "
                f"Write a method with {decorator}, or derive from a class without it"
            )


def _check_hidden(where: str, member: Any) -> None:
    if marks_of(member):
        return
    if getattr(member, "__module__", "") == "sagaz.core.decorators._steps":
        raise SagaDefinitionError(
            f'{where}: a decorator of sagaz wants a name: write @action("…") or '
            '@compensate("…"), with parentheses'
        )
    for inner in _wrapped(member):
        for mark, meta in marks_of(inner).items():
            decorator = _MARKS[mark](meta)
            raise SagaDefinitionError(
                f"{where}: another decorator hides {decorator} from sagaz: write {decorator} "
                "above it, or use functools.wraps in it"
            )


def _wrapped(member: Any) -> Iterator[Any]:
    """List the functions that a decorator's result keeps: in a partial, or in a closure."""
    if isinstance(member, partial | partialmethod):
        yield member.func
    # A decorator without functools.wraps leaves the original in the closure of its wrapper only.
    function = getattr(member, "__func__", member)
    if isinstance(function, FunctionType):
        for cell in function.__closure__ or ():
            try:
                kept = cell.cell_contents
            except ValueError:  # nothing is in it yet
                continue
            if isinstance(kept, FunctionType):
                yield kept
