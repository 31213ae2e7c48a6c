"""Hold a saga's row and steps, as claimed by a worker."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sagas.models import StepKind, StepStatus


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Hold a step's row in the journal.

    Attributes:
        status: a `StepStatus`.
        attempt: the number of the last attempt.
        failures: how many retries are spent.
        result: the step's result, decoded; None without a result.
        error: why the last attempt failed; empty otherwise.
        finished_at: when the last attempt ended; no two steps of a saga have the same moment.
    """

    status: str
    attempt: int
    failures: int
    result: Any
    error: str
    finished_at: datetime | None = None


@dataclass(slots=True)
class Claimed:
    """Hold a saga for a worker to run while the lease lasts, and the steps done so far.

    Attributes:
        epoch: the number of the claim; the next claim of the saga has a higher number.
        context: the first context, decoded.
        failure: why the saga is being undone; empty while the saga goes forwards.
        cancel_reason: of a cancel, waiting or applied; empty without a cancel.
        cancelled: the failure is a cancel.
        takeovers: how many workers the saga has lost since an attempt last ended.
        deadline_at: the deadline in seconds of `time.monotonic()`; None without a deadline.
        steps: by name and kind.
        unreadable: why the rows cannot be read; then context and steps are empty.
    """

    id: UUID
    name: str
    key: str
    version: int
    definition_hash: str
    epoch: int
    worker: str
    context: dict[str, Any]
    failure: str
    cancel_reason: str
    cancelled: bool
    past_pivot: bool
    takeovers: int
    deadline_at: float | None
    correlation_id: str
    traceparent: str
    steps: dict[tuple[str, str], StepRecord] = field(default_factory=dict)
    unreadable: str = ""

    @property
    def loss(self) -> str:
        """Say for people that another worker has the saga now."""
        return f"{self.name} {self.key} was taken over by another worker"

    @property
    def context_so_far(self) -> dict[str, Any]:
        """Return the first context with the results of the steps done, in the order of their ends.

        For the hook of a saga that parks without being run.
        """
        context = dict(self.context)
        done = [
            (step.finished_at, step.result)
            for (_, kind), step in self.steps.items()
            if kind == StepKind.FORWARD and step.status == StepStatus.DONE and step.finished_at
        ]
        for _, result in sorted(done, key=lambda each: each[0]):
            context |= result or {}
        return context
