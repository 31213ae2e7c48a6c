"""Hold what a worker has read of one saga: its row and its steps, as they were claimed."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step as the journal has it. `failures`: how many retries are spent. `finished_at`: when the
    last attempt ended; of the steps of one saga, no two are the same."""

    status: str
    attempt: int
    failures: int
    result: Any
    error: str
    finished_at: datetime | None = None


@dataclass(slots=True)
class Claimed:
    """A saga that this worker may run while its lease lasts, and what is already done of it.

    `unreadable`: why its rows cannot be read, where they cannot; then context and steps are empty.
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
    seconds_left: float | None
    correlation_id: str
    traceparent: str
    steps: dict[tuple[str, str], StepRecord] = field(default_factory=dict)
    unreadable: str = ""
