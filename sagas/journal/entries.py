"""What a run writes into the journal, and what becomes of it."""

from dataclasses import dataclass
from datetime import datetime

from sagas.definition.hooks import Ending
from sagas.journal.records import Claimed
from sagas.models import StepStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEntry:
    """What became of an attempt at a step. `result`: encoded. `failures`: with this one.
    `finished_at`: when it ended, where that tells which of two steps ended last."""

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
    """The saga is decided: it will be undone. `cancelled`: because somebody asked for it."""

    reason: str
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """No worker holds the saga until so many seconds have passed."""

    seconds: float


@dataclass(frozen=True, slots=True)
class BeginPivot:
    """From here on the saga cannot be cancelled or undone any more."""


@dataclass(frozen=True, slots=True)
class End:
    """The saga's last entry, where no hook of an app belongs into its transaction. `steps`: the
    names of all its forward steps."""

    ending: Ending
    steps: tuple[str, ...]


Change = Fail | Wait | BeginPivot | End


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is written of one saga in one go. `unless_cancelled`: not where a cancel waits."""

    saga: Claimed
    step: StepEntry | None = None
    changes: tuple[Change, ...] = ()
    unless_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """Say that an entry is in the journal.

    Attributes:
        cancel_reason: why the cancel that waits was asked for; empty where no cancel waits.
    """

    cancel_reason: str = ""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Say that an entry is not written: it was to be written unless a cancel waits, and one does.

    Attributes:
        reason: why the cancel was asked for.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Fenced:
    """Say that an entry is not written: another worker has claimed the saga, another attempt at the
    step has begun, or the saga is gone."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Say that an entry is not written: another transaction held the saga's row just then. The same
    entry may be written later."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Say that an entry is not written: the journal does not allow the saga to end so."""


Verdict = Written | Cancelled | Fenced | Busy | Refused
"""What has become of an entry."""
