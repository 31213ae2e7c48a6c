"""What the executor needs to know of a step, forward or compensating."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from sagaz.core.decorators import SagaStepDefinition

from sagas.models import StepKind


@dataclass(frozen=True, slots=True)
class Step:
    """`timeout`: seconds. `is_pivot`: from its start on the saga cannot be undone. `label`: as
    `charge:F`."""

    name: str
    kind: StepKind
    function: Callable[[dict[str, Any]], Any]
    is_external: bool
    max_retries: int
    timeout: float | None
    is_pivot: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}:{self.kind}"

    @property
    def told(self) -> str:
        """The step as log lines name it."""
        return self.name if self.kind is StepKind.FORWARD else f"undoing {self.name}"


def forward(definition: SagaStepDefinition) -> Step:
    return Step(
        definition.step_id,
        StepKind.FORWARD,
        definition.forward_fn,
        is_external(definition.forward_fn),
        definition.max_retries,
        definition.timeout_seconds,
        definition.pivot,
    )


def backward(definition: SagaStepDefinition) -> Step:
    """What undoes the step; nothing where it declares no compensation."""
    undo = definition.compensation_fn or _nothing
    meta = getattr(undo, "_saga_compensation_meta", None)
    return Step(
        definition.step_id,
        StepKind.COMPENSATION,
        undo,
        is_external(undo),
        meta.max_retries if meta else 0,
        definition.compensation_timeout_seconds,
    )


def _nothing(_context: dict[str, Any]) -> None:
    """Undoes a step that declares no compensation."""


def is_external(function: Callable[..., Any]) -> bool:
    """`async def` steps are external; `def` steps are local: exactly once, in a transaction."""
    return _is_coroutine_function(getattr(function, "__func__", function))


_is_coroutine_function = cache(inspect.iscoroutinefunction)
