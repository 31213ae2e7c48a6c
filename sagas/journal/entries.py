"""Define a run's entries for the journal (`Entry`), and the journal's answers (`Verdict`)."""

from dataclasses import dataclass
from datetime import datetime

from sagas.definition.hooks import Ending
from sagas.journal.records import Claimed
from sagas.models import StepStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEntry:
    """Describe an attempt at a step.

    Attributes:
        step: the step's name.
        kind: a `StepKind`: forward or compensation.
        status: the attempt's status, and the step's.
        attempt: the attempt's number, from 1.
        failures: how many retries are spent, with this attempt.
        started_at: when the attempt began.
        result: the step's result, encoded by `codec`.
        error: why the attempt failed, for people.
        finished_at: when the attempt ended, where the order of two steps' ends matters.
        traceback: of the error, as text.
    """

    step: str
    kind: str
    status: StepStatus
    attempt: int
    failures: int
    started_at: datetime
    result: str = ""
    error: str = ""
    finished_at: datetime | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Fail:
    """Decide against the saga: the steps done will be undone.

    Attributes:
        reason: the failure, for people.
        cancelled: the reason is a cancel, not a failed step.
    """

    reason: str
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Let no worker hold the saga until so many seconds have passed."""

    seconds: float


@dataclass(frozen=True, slots=True)
class BeginPivot:
    """Pass the point of no return: the saga cannot be cancelled or undone any more."""


@dataclass(frozen=True, slots=True)
class End:
    """End the saga, where no hook of an app belongs into the transaction.

    Attributes:
        ending: COMPLETED or ROLLED_BACK.
        steps: the names of all forward steps of the saga.
    """

    ending: Ending
    steps: tuple[str, ...]


Change = Fail | Wait | BeginPivot | End
"""A change of the saga's own row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Bundle all that is written of a saga at once.

    Attributes:
        saga: the saga, as claimed by the worker.
        step: an attempt at a step, if any.
        changes: changes of the saga's own row.
        unless_cancelled: write nothing where a cancel waits.
    """

    saga: Claimed
    step: StepEntry | None = None
    changes: tuple[Change, ...] = ()
    unless_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """Say that an entry is in the journal.

    Attributes:
        cancel_reason: of the waiting cancel; empty where no cancel waits.
    """

    cancel_reason: str = ""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Say that an entry is not written, because a cancel waits: see `Entry.unless_cancelled`.

    Attributes:
        reason: why the cancel was asked for.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Fenced:
    """Say that an entry is not written, and must not be written later.

    Another worker has claimed the saga, another attempt at the step has begun, or the saga is gone.
    """


@dataclass(frozen=True, slots=True)
class Busy:
    """Say that an entry is not written, but may be written later.

    Another transaction held the saga's row just then.
    """


@dataclass(frozen=True, slots=True)
class Refused:
    """Say that an entry is not written: the journal does not allow the end of the saga."""


Verdict = Written | Cancelled | Fenced | Busy | Refused
"""The journal's answer to an entry."""
