"""Count how often a step has been tried, and write each attempt as a journal entry."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sagas.definition.steps import Step
from sagas.journal.entries import StepEntry
from sagas.journal.records import StepRecord
from sagas.models import StepStatus


@dataclass(slots=True)
class Tries:
    """Count how often a step has been tried.

    Attributes:
        attempt: number of the running or last attempt.
        failures: how many attempts have spent a retry.
        in_doubt: a failed attempt may have had an effect all the same.
        excused: how often in a row our own database was away for a moment.
        started_at: when the attempt began.
    """

    attempt: int = 0
    failures: int = 0
    in_doubt: bool = False
    excused: int = 0
    started_at: datetime | None = None

    @classmethod
    def of(cls, record: StepRecord | None) -> "Tries":
        """Count on from the step's row in the journal, if any."""
        if record is None:
            return cls()
        # A call that a dead worker had begun may have had its effect.
        in_doubt = record.status in (StepStatus.STARTED, StepStatus.UNKNOWN)
        return cls(record.attempt, record.failures, in_doubt)

    def begin(self) -> None:
        """Count a further attempt; an interrupted attempt has spent no retry."""
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
        """Build the journal's entry of the attempt.

        Args:
            step: the attempted step.
            status: of the attempt.
            result: changes of the context, encoded.
            error: the failure, for people.
            finished_at: when the attempt ended; by default, when the entry is written.
            traceback: of the last failure, where the error is unexpected.
        """
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
