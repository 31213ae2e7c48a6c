"""Which sagas there are: found in each app's `sagas.py`, checked once at start-up."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from django.apps import apps
from django.utils.module_loading import autodiscover_modules
from sagaz import Saga as SagaClass
from sagaz.core.triggers import RegisteredTrigger, TriggerRegistry

from sagas.errors import SagaDefinitionError
from sagas.kinds import is_external


@dataclass(frozen=True, slots=True)
class SagaType:
    """A saga class, ready to run. `definition_hash` changes when its steps do."""

    name: str
    version: int
    definition_hash: str
    saga_class: type[SagaClass]


def discover() -> None:
    """Import every app's `sagas.py` and check what is in them.

    Raises:
        SagaDefinitionError: two sagas share a name, or a class cannot be run.
    """
    autodiscover_modules("sagas")
    by_name: dict[str, SagaType] = {}
    for saga_class in _classes():
        saga_type = _described(saga_class)
        twin = by_name.setdefault(saga_type.name, saga_type)
        if twin is not saga_type:
            raise SagaDefinitionError(
                f"{saga_class.__qualname__} and {twin.saga_class.__qualname__} share the name "
                f"{saga_type.name!r}: give one another saga_name"
            )
    _types.clear()
    _types.update(by_name)


def saga_type(name: str) -> SagaType | None:
    """The registered saga of that name."""
    return _types.get(name)


def trigger_for(message_type: str) -> tuple[SagaType, RegisteredTrigger] | None:
    """The saga that a message of this type starts, and its trigger."""
    for trigger in TriggerRegistry.get_triggers(message_type):
        found = _types.get(_name(trigger.saga_class))
        if found is not None and found.saga_class is trigger.saga_class:
            return found, trigger
    return None


_types: dict[str, SagaType] = {}


def _classes() -> Iterator[type[SagaClass]]:
    for config in apps.get_app_configs():
        try:
            module = import_module(f"{config.name}.sagas")
        except ModuleNotFoundError:
            continue
        for value in vars(module).values():
            if _is_saga(value) and f"{value.__module__}.".startswith(f"{module.__name__}."):
                yield value


def _is_saga(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, SagaClass) and value is not SagaClass


def _name(saga_class: type[SagaClass]) -> str:
    return saga_class.saga_name or saga_class.__name__


def _described(saga_class: type[SagaClass]) -> SagaType:
    saga = saga_class()
    steps = saga.get_steps()
    if not steps:
        raise SagaDefinitionError(f"{saga_class.__qualname__} has no steps")
    _check_steps(saga_class, [step.step_id for step in steps], steps)
    _check_order(saga)
    _check_compensations(saga, [step.step_id for step in steps])
    definition = sorted(
        (step.step_id, sorted(step.depends_on), is_external(step.forward_fn), step.pivot)
        for step in steps
    )
    digest = hashlib.sha256(json.dumps(definition).encode()).hexdigest()
    version = getattr(saga_class, "version", 1)
    if type(version) is not int or version < 1:
        raise SagaDefinitionError(
            f"{saga_class.__qualname__}.version is {version!r}: use 1, 2, 3 …"
        )
    return SagaType(_name(saga_class), version, digest, saga_class)


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
