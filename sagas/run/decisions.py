"""Decide what follows from a failed attempt, a cancel or the deadline.

A failure is decided, and a pivot begun, without an `await` in between: of steps that run side by
side either the pivot sees the failure and does not begin, or the failure sees the pivot and parks.
"""

from collections.abc import Callable

from saga_runtime.database_errors import alias_of, is_databases, is_outage, our_outage
from saga_runtime.logs import get_logger
from saga_runtime.text import one_line, one_line_error
from sagas.crash_points import Point, reach
from sagas.definition.steps import Step
from sagas.errors import Decided, Suspended
from sagas.failures import Failure, StepFailed, failure_of, stand_in
from sagas.journal.entries import BeginPivot, Change, Fail, StepEntry
from sagas.models import StepKind, StepStatus
from sagas.run.journal_writer import JournalWriter
from sagas.run.patience import Patience
from sagas.run.resources import RunResources
from sagas.run.resting import Resting
from sagas.run.state import RunState
from sagas.run.tries import Tries

logger = get_logger(__name__)

MOST_EXCUSED = 5
"""Attempts in a row that spend no retry though the database answers when asked."""


class Decisions:
    """Decide whether a step is attempted, attempted again, undone or left to a person.

    Args:
        state: of the run.
        writer: writes failures and decisions into the journal.
        patience: waits for the database.
        resources: of the worker: timing, and chance.
        undo_too: called with the name of a step in doubt, where the saga is decided.
    """

    def __init__(
        self,
        state: RunState,
        writer: JournalWriter,
        patience: Patience,
        resources: RunResources,
        *,
        undo_too: Callable[[str], None],
    ) -> None:
        self._state = state
        self._claimed = state.claimed
        self._writer = writer
        self._patience = patience
        self._resources = resources
        self._resting = Resting(state, writer, patience, longest=resources.timing.longest_rest)
        self._undo_too = undo_too

    async def stop_if_decided(self, step: Step, tries: Tries) -> None:
        """Check that an attempt is still wanted, and begin the pivot.

        A parallel step may have failed, a cancel come, the deadline passed. Between the last check
        and the note of a begun pivot nothing may be awaited: see the module.

        Raises:
            Decided: the saga is to be undone.
            Suspended: the deadline has passed behind a pivot, and the saga is parked.
        """
        if step.kind is StepKind.COMPENSATION:
            return
        left = self._state.seconds_left
        if self._state.failure and not self._state.has_begun_pivot:
            # sagaz undoes only the steps that it has seen done.
            self._undo_if_in_doubt(step, tries)
            raise Decided(self._state.failure)
        if self._state.is_cancel_due:
            await self._decide(step, tries, self._state.cancel_reason, cancelled=True)
        elif left is not None and left <= 0 and not self._state.failure:
            reason = "its deadline has passed"
            if self._state.has_begun_pivot:
                self._state.park(f"{reason}, and {step.name} is not done")
                self._state.stop_if_suspended()
            await self._decide(step, tries, reason, cancelled=False)
        if step.is_pivot:
            # Nothing was awaited since the look: a step that fails beside it sees it begun.
            self._state.pivots_begun.add(step.name)

    async def is_excused(self, step: Step, tries: Tries, failure: Failure) -> bool:
        """Tell whether our own database was away: such a failure spends no retry.

        The database may answer when asked; then the error tells whose database was away. A step
        that breaks our connection each time looks the same, and is not excused for ever.
        """
        error = failure.error
        ours = None if failure.is_no else our_outage(error)
        is_nobodys = is_databases(error) and is_outage(error) and alias_of(error) is None
        if ours is None and not is_nobodys:
            return False
        # Asked, not believed: only a database that does not answer excuses without end.
        if await self._patience.was_away():
            tries.excused = 0
            return True
        if ours is None or tries.excused >= MOST_EXCUSED:
            return False
        tries.excused += 1
        logger.warning(
            "%s %s: the database was away while %s ran, trying again: %s",
            *(self._claimed.name, self._claimed.key, step.name, one_line_error(ours)),
        )
        await self._patience.sleep(self._resources.retry_pause(tries.excused))
        return True

    async def handle_failure(self, step: Step, tries: Tries, failure: Failure) -> None:
        """Write a failed attempt, then rest until the next attempt or end the step.

        Raises:
            StepFailed: no attempt is left.
        """
        tries.failures += 1
        is_final = failure.is_no or failure.is_unstorable or failure.needs_attention
        is_last = is_final or tries.failures > step.max_retries
        # A pivot that refused has had no effect, so the saga can still be undone.
        if step.is_pivot and (failure.is_no or failure.needs_attention) and not tries.in_doubt:
            self._state.pivots_begun.discard(step.name)
        is_forward = step.kind is StepKind.FORWARD
        may_decide = is_forward and not self._state.has_begun_pivot and not failure.needs_attention
        decides = is_last and may_decide
        if decides:
            # Before the first await: a pivot beside this step must see the failure.
            self._state.failure = self._state.failure or failure.text
        kept = failure.traceback if is_last else ""
        await self._journal_failure(step, tries, failure.text, decides=decides, kept=kept)
        self._log(step, tries, failure, is_last=is_last)
        if not is_last:
            reach(Point.ATTEMPT_FAILED, step.label)
            await self._resting.rest(step, self._resources.retry_pause(tries.failures))
            return
        if decides:
            reach(Point.FAILURE_DECIDED, step.label)
            self._undo_if_in_doubt(step, tries)
        elif is_forward and self._state.is_cancel_due:
            # It came while a local pivot ran, of which nothing is left: that has not begun.
            await self._decide(step, tries, self._state.cancel_reason, cancelled=True)
        elif is_forward and failure.needs_attention:
            self._state.park(f"{step.name} needs a person: {failure.text}")
        elif is_forward and self._state.has_begun_pivot:
            self._state.park(f"{step.name} failed past the point of no return: {failure.text}")
        raise StepFailed(failure)

    async def _decide(self, step: Step, tries: Tries, reason: str, *, cancelled: bool) -> None:
        """Decide to undo the saga, and write the decision.

        Raises:
            Decided: always, unless the decision cannot be written.
        """
        # In memory before the write: a step beside this one must not begin during the commit.
        self._state.failure = reason
        self._state.cancelled = cancelled
        await self._write_decision(Fail(reason, cancelled))
        reach(Point.FAILURE_DECIDED, step.label)
        self._undo_if_in_doubt(step, tries)
        raise Decided(reason)

    def _undo_if_in_doubt(self, step: Step, tries: Tries) -> None:
        if tries.in_doubt:
            self._undo_too(step.name)

    async def _journal_failure(
        self, step: Step, tries: Tries, text: str, *, decides: bool, kept: str
    ) -> None:
        """Write a failed attempt, and with the attempt a decision.

        Args:
            step: the failed step.
            tries: with the failed attempt.
            text: the failure, for people.
            decides: undo the saga.
            kept: the traceback to keep with the attempt.

        Raises:
            Suspended: the run goes no further.
        """
        status = StepStatus.UNKNOWN if tries.in_doubt else StepStatus.FAILED
        entry = tries.entry(step, status, error=text, traceback=kept)
        changes: list[Fail | BeginPivot] = []
        if decides:
            changes.append(Fail(text))
        # A pivot that has failed, and has not said no, stays begun. A local one's begin was rolled
        # back with the step's transaction.
        elif step.is_pivot and step.name in self._state.pivots_begun:
            changes.append(BeginPivot())
        await self._write_decision(*changes, step=entry)

    async def _write_decision(self, *changes: Change, step: StepEntry | None = None) -> None:
        """Write a decision, or suspend the run: nothing may follow from an unwritten decision.

        Raises:
            Suspended: nothing is written.
        """
        try:
            await self._writer.append(*changes, step=step)
        except Suspended:
            raise
        except Exception as unwritten:
            raise self._state.suspended_by(failure_of(unwritten).text) from unwritten

    def _log(self, step: Step, tries: Tries, failure: Failure, *, is_last: bool) -> None:
        """Log a failed attempt; the last attempt with the traceback of an unexpected error."""
        of = (
            self._claimed.name,
            self._claimed.key,
            step.log_name,
            tries.failures,
            step.max_retries + 1,
        )
        text = one_line(failure.text)
        if not is_last:
            logger.warning("%s %s: %s failed (%d of %d), trying again: %s", *of, text)
        elif not failure.is_expected:
            shown = stand_in(failure.error)
            logger.error("%s %s: %s failed (%d of %d): %s", *of, text, exc_info=shown)
