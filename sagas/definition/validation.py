"""Check a saga class at start-up, and refuse in a sentence a class that cannot run safely."""

import inspect
from datetime import timedelta

from sagaz import Saga as SagaClass

from saga_runtime.text import describe_error
from sagas.definition.hidden_methods import check_attributes, check_overrides, marks_of
from sagas.definition.identity import check_name
from sagas.definition.saga_types import name_of
from sagas.definition.step_checks import check_steps
from sagas.definition.unsupported_features import check_declared
from sagas.errors import SagaDefinitionError

LONGEST_DEADLINE = timedelta(days=36_500)


def make_instance(saga_class: type[SagaClass]) -> SagaClass:
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
    """Tell whether a class is only the base of other classes, and no saga.

    A class is a base where its own body says `abstract = True`, where it has abstract methods, or
    where it has subclasses and no steps.

    Raises:
        SagaDefinitionError: the class has steps and subclasses, and may be meant as a saga too.
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


def check_saga(saga: SagaClass) -> None:
    """Refuse a saga that cannot be run safely.

    Raises:
        SagaDefinitionError: the saga cannot; the text says what to change.
    """
    saga_class = type(saga)
    check_name(name_of(saga_class), where=f"{saga_class.__qualname__}.saga_name")
    check_attributes(saga)
    check_declared(saga)
    check_steps(saga)


def checked_version(saga_class: type[SagaClass]) -> int:
    """Return the class's version.

    Raises:
        SagaDefinitionError: the version is no whole number from 1 on.
    """
    version = getattr(saga_class, "version", 1)
    if type(version) is not int or version < 1:
        raise SagaDefinitionError(
            f"{saga_class.__qualname__}.version is {version!r}: use 1, 2, 3 …"
        )
    return version


def checked_deadline(saga_class: type[SagaClass]) -> timedelta | None:
    """Return how long a saga of the class may take; None for no limit.

    Raises:
        SagaDefinitionError: the deadline is no timedelta, or no moment can be counted with it.
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


def checked_max_concurrent(saga_class: type[SagaClass]) -> int | None:
    """Return `max_concurrent` of the class's triggers; of several, the lowest.

    Raises:
        SagaDefinitionError: a limit is no whole number from 1 on.
    """
    methods = (getattr(saga_class, name) for name in dir(saga_class))
    metadata = [marks_of(method).get("_trigger_metadata") for method in methods]
    limits = [each.max_concurrent for each in metadata if each and each.max_concurrent is not None]
    if any(type(limit) is not int or limit < 1 for limit in limits):
        raise SagaDefinitionError(
            f"{saga_class.__qualname__}: max_concurrent must be 1 or more, or left out"
        )
    return min(limits, default=None)
