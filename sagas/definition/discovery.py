"""Find the apps' saga classes at start-up, check each class, and register it."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from django.apps import apps
from django.utils.module_loading import autodiscover_modules
from sagaz import Saga as SagaClass

from sagas.definition import registry, validation
from sagas.definition.cross_checks import check_message_types
from sagas.definition.instances import InstanceFactory
from sagas.definition.saga_types import SagaType, name_of
from sagas.definition.steps import is_external
from sagas.definition.unsupported_features import is_made_by_hand
from sagas.errors import SagaDefinitionError

AnySaga = type[SagaClass] | SagaClass
"""A saga class, or an instance in the place of its class."""


def discover() -> None:
    """Import every app's `sagas.py`, and register the saga classes in them.

    Raises:
        SagaDefinitionError: two sagas share a name or a message, or a class cannot be run.
    """
    autodiscover_modules("sagas")
    replace_all(saga_classes())


def replace_all(classes: Iterable[type[SagaClass]]) -> None:
    """Register saga classes, and forget all that were registered before.

    Base classes, which are no sagas of their own, are left out.

    Raises:
        SagaDefinitionError: two sagas share a name or a message, or a class cannot be run.
    """
    # Otherwise a second `discover()` would meet the classes of the first as twins.
    registry.current().types.clear()
    # A module may hold a class under two names.
    for saga_class in dict.fromkeys(classes):
        if not validation.is_base(saga_class):
            register(saga_class)
    check_message_types()


def register(saga_class: type[SagaClass]) -> SagaType:
    """Register a saga class, beside older versions of the same saga.

    Raises:
        SagaDefinitionError: its name and version are taken, or the class cannot be run.
    """
    found = describe(saga_class)
    registry.current().types.add(found)
    return found


def register_all_in(module: ModuleType) -> None:
    """Register the saga classes that a module defines and that are not registered yet.

    Raises:
        SagaDefinitionError: a class cannot be run, or its name and version are another's.
    """
    for value in vars(module).values():
        is_own = _is_saga_class(value) and value.__module__ == module.__name__
        if is_own and not validation.is_base(value) and _type_of(value) is None:
            register(value)


def registered_type(saga: AnySaga) -> SagaType:
    """Return the registered type of a saga class, or of an instance's class.

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
    if found is None:
        raise SagaDefinitionError(
            f"{saga_class.__qualname__} is not registered: put it into the sagas.py of an app that "
            "is in INSTALLED_APPS"
        )
    return found


def _type_of(saga_class: type[SagaClass]) -> SagaType | None:
    """Return the registered type of a class; None where the class is not registered."""
    found = registry.saga_type(name_of(saga_class), getattr(saga_class, "version", 1))
    return found if found is not None and found.saga_class is saga_class else None


def describe(saga_class: type[SagaClass]) -> SagaType:
    """Check a saga class, and describe the class for the other rooms.

    Raises:
        SagaDefinitionError: the class cannot be run safely.
    """
    saga = validation.make_instance(saga_class)
    validation.check_saga(saga)
    return SagaType(
        name=name_of(saga_class),
        version=validation.checked_version(saga_class),
        definition_hash=_definition_hash(saga),
        saga_class=saga_class,
        instances=InstanceFactory(saga_class),
        deadline=validation.checked_deadline(saga_class),
        max_concurrent=validation.checked_max_concurrent(saga_class),
    )


def saga_classes() -> Iterator[type[SagaClass]]:
    """List the saga classes in the `sagas.py` of each app.

    Raises:
        SagaDefinitionError: a module holds a saga that was made by hand.
    """
    for config in apps.get_app_configs():
        try:
            module = import_module(f"{config.name}.sagas")
        except ModuleNotFoundError:
            continue
        yield from saga_classes_of(module, app=config.name)


def saga_classes_of(module: ModuleType, *, app: str) -> Iterator[type[SagaClass]]:
    """List an app's own saga classes in a module.

    Args:
        module: the app's `sagas.py`.
        app: the app's name, such as `orders`.

    Raises:
        SagaDefinitionError: the module holds a saga made by hand, as `Saga(name=…)`.
    """
    for name, value in vars(module).items():
        if is_made_by_hand(value):
            raise SagaDefinitionError(
                f"{module.__name__}.{name} is a saga made by hand, of which nothing would be "
                "run: write it as a class, with methods that have @action(…) and @compensate(…)"
            )
        # A class that the module only imports belongs to the app in which it is written.
        if _is_saga_class(value) and f"{value.__module__}.".startswith(f"{app}."):
            yield value


def _is_saga_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, SagaClass) and value is not SagaClass


def _definition_hash(saga: SagaClass) -> str:
    """Return a digest of the parts that a half-done saga depends on: names, order, kinds, pivot."""
    definition = sorted(
        (step.step_id, sorted(step.depends_on), is_external(step.forward_fn), step.pivot)
        for step in saga.get_steps()
    )
    return hashlib.sha256(json.dumps(definition).encode()).hexdigest()
