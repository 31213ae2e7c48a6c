"""Which sagas there are: found in each app's `sagas.py`, checked once at start-up."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from types import ModuleType
from typing import Any

from django.apps import apps
from django.utils.module_loading import autodiscover_modules
from sagaz import Saga as SagaClass
from sagaz.core.triggers import RegisteredTrigger, TriggerRegistry

from sagas.definition import validation
from sagas.definition.cancel_rules import cancel_rule, cancelled_sagas
from sagas.definition.hooks import names_with_hooks
from sagas.definition.instances import Pattern
from sagas.definition.steps import is_external
from sagas.definition.unsupported_features import is_made_by_hand
from sagas.definition.validation import name_of
from sagas.errors import SagaDefinitionError

AnySaga = type[SagaClass] | SagaClass
"""A saga class, or an instance that stands for its class."""


@dataclass(frozen=True, slots=True)
class SagaType:
    """A saga class, ready to run.

    `definition_hash` changes when its steps do. `deadline`: how long a saga may take, counted from
    its command. `max_concurrent`: how many may run at a time, among all workers.
    """

    name: str
    version: int
    definition_hash: str
    saga_class: type[SagaClass]
    pattern: Pattern = field(compare=False)
    deadline: timedelta | None = None
    max_concurrent: int | None = None


def discover() -> None:
    """Import every app's `sagas.py` and check what is in them.

    Raises:
        SagaDefinitionError: two sagas share a name or a message, or a class cannot be run.
    """
    autodiscover_modules("sagas")
    _types.clear()
    for saga_class in dict.fromkeys(_classes()):
        if not validation.is_base(saga_class):
            register(saga_class)
    for source in TriggerRegistry.get_all():
        _check_source(source)


def check_references() -> None:
    """Check that what is hung onto a saga, by its name, is hung onto one that there is.

    Raises:
        SagaDefinitionError: a function of `on_finish` or `on_park`, or a cancel, names none.
    """
    named = dict.fromkeys(names_with_hooks(), "a function of sagas.on_finish or sagas.on_park")
    named |= {name: f"cancel_on({source!r})" for source, name in cancelled_sagas().items()}
    for name, what in named.items():
        if name not in _types:
            known = ", ".join(sorted(_types)) or "none"
            raise SagaDefinitionError(
                f"{what} is for the saga {name!r}, which is none of those that there are: {known}"
            )


def register(saga_class: type[SagaClass]) -> SagaType:
    """Make a saga class known, beside older versions of the same saga.

    Raises:
        SagaDefinitionError: its name and version are taken, or it cannot be run.
    """
    described = _described(saga_class)
    versions = _types.setdefault(described.name, {})
    twin = versions.setdefault(described.version, described)
    if twin is not described:
        raise SagaDefinitionError(
            f"{saga_class.__qualname__} and {twin.saga_class.__qualname__} share the name "
            f"{described.name!r} and version {described.version}: give one another saga_name, a "
            "changed saga a higher version, or a base of others `abstract = True`"
        )
    return described


def register_all_in(module: ModuleType) -> None:
    """Register the saga classes that a module defines, but for those that are known already.

    Raises:
        SagaDefinitionError: a class cannot be run, or its name and version are another's.
    """
    for value in vars(module).values():
        is_own = _is_saga(value) and value.__module__ == module.__name__
        if is_own and not validation.is_base(value) and not _is_registered(value):
            register(value)


def registered_type(saga: AnySaga) -> SagaType:
    """Return what is registered of a saga's class, or of the class of an instance.

    Raises:
        SagaDefinitionError: the class is not registered; the text says what to do.
    """
    saga_class = saga if isinstance(saga, type) else type(saga)
    if saga_class is SagaClass:
        raise SagaDefinitionError(
            "Saga is not registered, and one made by hand, of add_step(…), cannot be journalled: "
            "write a class, with methods that have @action(…) and @compensate(…), in the sagas.py "
            "of an app"
        )
    found = _type_of(saga_class)
    if found is None or found.saga_class is not saga_class:
        raise SagaDefinitionError(
            f"{saga_class.__qualname__} is not registered: put it into the sagas.py of an app that "
            "is in INSTALLED_APPS"
        )
    return found


def _is_registered(saga_class: type[SagaClass]) -> bool:
    found = _type_of(saga_class)
    return found is not None and found.saga_class is saga_class


def _type_of(saga_class: type[SagaClass]) -> SagaType | None:
    """Return the registered saga of a class's name and version, which may be another class's."""
    return saga_type(name_of(saga_class), getattr(saga_class, "version", 1))


def saga_type(name: str, version: int | None = None) -> SagaType | None:
    """The registered saga of that name and version; without a version, the newest."""
    versions = _types.get(name, {})
    return versions.get(max(versions, default=0) if version is None else version)


def max_concurrent() -> dict[str, int]:
    """By name, how many sagas may run at a time where there is a limit: that of the newest."""
    newest = [saga_type(name) for name in _types]
    return {each.name: each.max_concurrent for each in newest if each and each.max_concurrent}


def trigger_for(message_type: str) -> tuple[SagaType, RegisteredTrigger] | None:
    """The saga that a message of this type starts, in its newest version, and its trigger."""
    return next(_started_by(message_type), None)


def _started_by(message_type: str) -> Iterator[tuple[SagaType, RegisteredTrigger]]:
    for trigger in TriggerRegistry.get_triggers(message_type):
        found = saga_type(name_of(trigger.saga_class))
        if found is not None and found.saga_class is trigger.saga_class:
            yield found, trigger


def _check_source(message_type: str) -> None:
    """A message starts one saga, or cancels one."""
    started = [
        f"{found.name}.{trigger.method_name}" for found, trigger in _started_by(message_type)
    ]
    if len(started) > 1:
        raise SagaDefinitionError(
            f"messages of type {message_type!r} would start {' and '.join(started)}: a message "
            "starts one saga; let each have a type of its own"
        )
    if started and cancel_rule(message_type) is not None:
        raise SagaDefinitionError(
            f"messages of type {message_type!r} would start {started[0]} and cancel sagas too: "
            "give one of them another type"
        )


_types: dict[str, dict[int, SagaType]] = {}


def _classes() -> Iterator[type[SagaClass]]:
    for config in apps.get_app_configs():
        try:
            module = import_module(f"{config.name}.sagas")
        except ModuleNotFoundError:
            continue
        for name, value in vars(module).items():
            if is_made_by_hand(value):
                raise SagaDefinitionError(
                    f"{module.__name__}.{name} is a saga made by hand, of which nothing would be "
                    "run: write it as a class, with methods that have @action(…) and @compensate(…)"
                )
            if _is_saga(value) and f"{value.__module__}.".startswith(f"{config.name}."):
                yield value


def _is_saga(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, SagaClass) and value is not SagaClass


def _described(saga_class: type[SagaClass]) -> SagaType:
    saga = validation.made(saga_class)
    validation.check(saga)
    definition = sorted(
        (step.step_id, sorted(step.depends_on), is_external(step.forward_fn), step.pivot)
        for step in saga.get_steps()
    )
    return SagaType(
        name_of(saga_class),
        validation.checked_version(saga_class),
        hashlib.sha256(json.dumps(definition).encode()).hexdigest(),
        saga_class,
        Pattern(saga_class),
        validation.checked_deadline(saga_class),
        validation.checked_most(saga_class),
    )
