"""Describe how a saga ended, and keep the functions that apps want called at an end."""

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
        saga_id: the saga's id, as returned by `sagas.saga_id(name, key)`.
        name: the saga's name.
        key: the saga's business key.
        ending: completed, rolled back or parked.
        context: the saga's final context.
        reason: the failure's text, as in the journal; empty where the saga completed.
        cancelled: whether a cancel was asked for, and is why the saga was rolled back.
    """

    saga_id: UUID
    name: str
    key: str
    ending: Ending
    context: dict[str, Any]
    reason: str = ""
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Cut the reason to the length in the journal."""
        object.__setattr__(self, "reason", bounded(self.reason))


Hook = Callable[[SagaOutcome], None]


class Hooks:
    """Keep the functions that apps want called: at the end of a saga, and before a worker starts.

    Each saga's name has a single function for the end, and a single function for being parked:
    both run in the saga's last transaction, where the order of several would matter.
    """

    def __init__(self) -> None:
        self._finish: dict[str, Hook] = {}
        self._park: dict[str, Hook] = {}
        self._start: list[Callable[[], object]] = []

    def add_finish(self, saga_name: str, hook: Hook) -> None:
        """Add the function for completed and rolled back sagas of a name.

        Raises:
            SagaDefinitionError: the name has a different function already.
        """
        _add(self._finish, saga_name, hook)

    def add_park(self, saga_name: str, hook: Hook) -> None:
        """Add the function for parked sagas of a name.

        Raises:
            SagaDefinitionError: the name has a different function already.
        """
        _add(self._park, saga_name, hook)

    def add_start(self, hook: Callable[[], object]) -> None:
        """Add a function to be called before a worker takes a saga up."""
        self._start.append(hook)

    def saga_names(self) -> set[str]:
        """Return the names of the sagas that have a function for an end or for being parked."""
        return {*self._finish, *self._park}

    def has(self, saga_name: str, ending: Ending) -> bool:
        """Tell whether a function is to be called for a saga of this name that ends so."""
        return saga_name in self._for(ending)

    def call(self, outcome: SagaOutcome) -> None:
        """Call the function for an outcome, if there is one."""
        hook = self._for(outcome.ending).get(outcome.name)
        if hook is not None:
            hook(outcome)

    def call_start(self) -> None:
        """Call the functions for a worker's start, in the order of adding."""
        for hook in self._start:
            hook()

    def copy(self) -> "Hooks":
        """Return an independent copy."""
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
