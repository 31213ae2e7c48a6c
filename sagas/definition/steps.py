"""What the executor needs to know of a step, forward or compensating."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sagaz.core.decorators import SagaStepDefinition

from sagas.definition.kinds import is_external
from sagas.journal.claims import StepRecord
from sagas.journal.entries import StepEntry
from sagas.models import StepKind, StepStatus


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


@dataclass(slots=True)
class Tries:
    """How often a step has been tried. `in_doubt`: it may have had its effect all the same.
    `excused`: how often in a row our own database was away for a moment."""

    attempt: int = 0
    failures: int = 0
    in_doubt: bool = False
    excused: int = 0
    started_at: datetime | None = None

    @classmethod
    def of(cls, record: StepRecord | None) -> "Tries":
        if record is None:
            return cls()
        in_doubt = record.status in (StepStatus.STARTED, StepStatus.UNKNOWN)
        return cls(record.attempt, record.failures, in_doubt)

    def begin(self) -> None:
        """Another attempt; one that was interrupted has spent no retry."""
        self.attempt += 1
        self.started_at = datetime.now(UTC)

    def entry(
        self,
        step: Step,
        status: StepStatus,
        *,
        result: str = "",
        error: str = "",
        finished_at: datetime | None = None,
        traceback: str = "",
    ) -> StepEntry:
        """What the journal shall have of this attempt."""
        return StepEntry(
            step=step.name,
            kind=step.kind,
            status=status,
            attempt=self.attempt,
            failures=self.failures,
            started_at=self.started_at or datetime.now(UTC),
            result=result,
            error=error,
            finished_at=finished_at,
            traceback=traceback,
        )


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
