"""Describe a step, forward or compensating, as the executor needs it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from sagaz.core.decorators import SagaStepDefinition

from sagas.definition.commit_alone import commits_alone
from sagas.models import StepKind

_HOOKS = ("on_enter", "on_success", "on_failure")


@dataclass(frozen=True, slots=True)
class Step:
    """Describe one function of a saga: a step, or the compensation of a step.

    Attributes:
        name: the step's name, which its compensation shares.
        kind: forward or compensation.
        function: takes the context; returns what is to be added to the context, or None.
        is_external: whether the function is `async def`, and calls something outside the database.
        max_retries: attempts after the first one.
        timeout: seconds for an attempt; None for no limit.
        is_pivot: whether the saga cannot be undone any more once this step has begun.
        commits_alone: whether the step shares no transaction: see `commit_alone`.
        has_hooks: whether sagaz calls functions of the app around the step.
    """

    name: str
    kind: StepKind
    function: Callable[[dict[str, Any]], Any]
    is_external: bool
    max_retries: int
    timeout: float | None
    is_pivot: bool = False
    commits_alone: bool = False
    has_hooks: bool = False

    @property
    def label(self) -> str:
        """Return name and kind, as `charge:F`."""
        return f"{self.name}:{self.kind}"

    @property
    def log_name(self) -> str:
        """Return the name for log lines, as `charge` or `undoing charge`."""
        return self.name if self.kind is StepKind.FORWARD else f"undoing {self.name}"


def forward_step(definition: SagaStepDefinition) -> Step:
    """Describe a step."""
    return Step(
        name=definition.step_id,
        kind=StepKind.FORWARD,
        function=definition.forward_fn,
        is_external=is_external(definition.forward_fn),
        max_retries=definition.max_retries,
        timeout=definition.timeout_seconds,
        is_pivot=definition.pivot,
        commits_alone=commits_alone(definition.forward_fn),
        has_hooks=any(getattr(definition, name, None) for name in _HOOKS),
    )


def compensation_step(definition: SagaStepDefinition) -> Step:
    """Describe the compensation of a step; a step that declares none is undone by doing nothing."""
    undo = definition.compensation_fn or undo_nothing
    meta = getattr(undo, "_saga_compensation_meta", None)
    return Step(
        name=definition.step_id,
        kind=StepKind.COMPENSATION,
        function=undo,
        is_external=is_external(undo),
        max_retries=meta.max_retries if meta else 0,
        timeout=definition.compensation_timeout_seconds,
    )


def undo_nothing(_context: dict[str, Any]) -> None:
    """Undo a step without a compensation."""


def is_external(function: Callable[..., Any]) -> bool:
    """Tell whether a step is external: `async def`. A `def` step is local, in a transaction."""
    return _is_coroutine_function(getattr(function, "__func__", function))


_is_coroutine_function = cache(inspect.iscoroutinefunction)  # it is asked for each run, and slow
