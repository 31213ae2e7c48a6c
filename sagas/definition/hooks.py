"""Describe how a saga ended, and keep the functions that an app wants called then."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from saga_runtime.text import bounded
from sagas.errors import SagaDefinitionError


class Ending(StrEnum):
    """Name the ways in which a worker lets go of a saga for good, or until a person helps."""

    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"
    PARKED = "parked"


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaOutcome:
    """Tell how a saga ended.

    Attributes:
        saga_id: the saga's id, as `sagas.saga_id(name, key)` makes it.
        name: the saga's name.
        key: its business key.
        ending: how it ended.
        context: its final context.
        reason: what failed the saga, as the journal has it; empty where the saga completed.
        cancelled: whether it was rolled back because somebody asked for that.
    """

    saga_id: UUID
    name: str
    key: str
    ending: Ending
    context: dict[str, Any]
    reason: str = ""
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Cut the reason to what the journal keeps."""
        object.__setattr__(self, "reason", bounded(self.reason))


Hook = Callable[[SagaOutcome], None]


class Hooks:
    """Keep the functions that apps want called: at the end of a saga, and before a worker starts.

    A saga's name has at most one function for its end, and one for being parked: they run in the
    saga's last transaction, where two would depend on their order.
    """

    def __init__(self) -> None:
        self._finish: dict[str, Hook] = {}
        self._park: dict[str, Hook] = {}
        self._start: list[Callable[[], object]] = []

    def add_finish(self, saga_name: str, hook: Hook) -> None:
        """Add the function for sagas of this name that complete or are rolled back.

        Raises:
            SagaDefinitionError: the name has another function already.
        """
        _add(self._finish, saga_name, hook)

    def add_park(self, saga_name: str, hook: Hook) -> None:
        """Add the function for sagas of this name that are parked.

        Raises:
            SagaDefinitionError: the name has another function already.
        """
        _add(self._park, saga_name, hook)

    def add_start(self, hook: Callable[[], object]) -> None:
        """Add a function to be called before a worker takes a saga up."""
        self._start.append(hook)

    def saga_names(self) -> set[str]:
        """Return the names of the sagas that have a function for an end or for being parked."""
        return {*self._finish, *self._park}

    def has(self, saga_name: str, ending: Ending) -> bool:
        """Tell whether a function wants to take part in the transaction of this ending."""
        return saga_name in self._for(ending)

    def call(self, outcome: SagaOutcome) -> None:
        """Call the function for this outcome, where the saga's name has one."""
        hook = self._for(outcome.ending).get(outcome.name)
        if hook is not None:
            hook(outcome)

    def call_start(self) -> None:
        """Call each function that is to run before a worker starts, in the order of adding."""
        for hook in self._start:
            hook()

    def copy(self) -> "Hooks":
        """Return hooks of their own, with the same functions in them."""
        copied = Hooks()
        copied._finish = dict(self._finish)
        copied._park = dict(self._park)
        copied._start = list(self._start)
        return copied

    def _for(self, ending: Ending) -> dict[str, Hook]:
        return self._park if ending is Ending.PARKED else self._finish


def _add(hooks: dict[str, Hook], saga_name: str, hook: Hook) -> None:
    if hooks.setdefault(saga_name, hook) is not hook:
        raise SagaDefinitionError(
            f"a function is called at the end of {saga_name} already: call both from one"
        )
