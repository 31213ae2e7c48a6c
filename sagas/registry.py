"""Which sagas there are: found in each app's `sagas.py`, checked once at start-up."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from itertools import combinations
from typing import Any

from django.apps import apps
from django.utils.module_loading import autodiscover_modules
from sagaz import Saga as SagaClass
from sagaz.core.triggers import RegisteredTrigger, TriggerRegistry

from sagas.cancel_rules import cancel_rule
from sagas.errors import SagaDefinitionError
from sagas.kinds import is_external
from sagas.pattern import Pattern


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
        register(saga_class)
    for source in TriggerRegistry.get_all():
        _check_source(source)


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
            f"{described.name!r} and version {described.version}: give one another saga_name, or a "
            "changed saga a higher version"
        )
    return described


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
        found = saga_type(_name(trigger.saga_class))
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
    _check_roots(saga, steps)
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
    return SagaType(
        _name(saga_class), version, digest, saga_class, Pattern(saga_class),
        _deadline(saga_class), _most(saga_class),
    )  # fmt: skip


def _deadline(saga_class: type[SagaClass]) -> timedelta | None:
    deadline = getattr(saga_class, "deadline", None)
    if deadline is None or (isinstance(deadline, timedelta) and deadline > timedelta(0)):
        return deadline
    raise SagaDefinitionError(
        f"{saga_class.__qualname__}.deadline is {deadline!r}: use a timedelta above zero"
    )


def _most(saga_class: type[SagaClass]) -> int | None:
    """`max_concurrent` of its triggers; of several, the lowest."""
    methods = (getattr(saga_class, name) for name in dir(saga_class))
    metadata = [getattr(method, "_trigger_metadata", None) for method in methods]
    limits = [each.max_concurrent for each in metadata if each and each.max_concurrent is not None]
    if any(type(limit) is not int or limit < 1 for limit in limits):
        raise SagaDefinitionError(
            f"{saga_class.__qualname__}: max_concurrent must be 1 or more, or left out"
        )
    return min(limits, default=None)


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
