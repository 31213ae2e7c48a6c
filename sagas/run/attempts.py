"""Attempt a step until the step is done, or the saga is decided.

A failure is decided, and a pivot begun, without an `await` in between: of steps that run side by
side either the pivot sees the failure and does not begin, or the failure sees the pivot and parks.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from saga_runtime.abandoned_calls import current_step
from saga_runtime.allowance import Allowance
from saga_runtime.async_orm import heal_after
from saga_runtime.database_errors import (
    AWAY,
    alias_of,
    causes,
    is_conflict,
    is_databases,
    is_lock_not_available,
    is_of_another,
    is_outage,
    keeps_waiting,
    our_outage,
)
from saga_runtime.database_threads import NoThreadLeft
from saga_runtime.logs import get_logger
from saga_runtime.text import one_line, one_line_error
from sagas.crash_points import Point, reach
from sagas.definition.current_step import current_key
from sagas.definition.identity import step_key
from sagas.definition.steps import Step
from sagas.errors import CancelRequested, Decided, Suspended
from sagas.failures import Failure, StepFailed, failure_of, stand_in
from sagas.journal import codec, local_step, lookups
from sagas.journal.entries import BeginPivot, Cancelled, Change, Entry, Fail, StepEntry
from sagas.models import StepKind, StepStatus
from sagas.run.calling import call_external, call_local
from sagas.run.journal_writer import JournalWriter
from sagas.run.patience import Patience
from sagas.run.resources import RunResources
from sagas.run.resting import Resting
from sagas.run.state import RunState
from sagas.run.tries import Tries

logger = get_logger(__name__)

MOST_EXCUSED = 5
"""Attempts in a row that spend no retry though the database answers when asked."""

Context = dict[str, Any]


class _Conflict(Exception):  # noqa: N818 - states the fact
    """Raised where a local step's transaction lost against another; no retry is spent."""


class _Work:
    """Call a local step, and keep the step's error apart from errors of the journal.

    Attributes:
        error: raised by the step.
        finished_at: when the step ended, for the journal.
    """

    def __init__(self, call: Callable[[], Any], finished_at: Callable[[], datetime]) -> None:
        self._call = call
        self._finished_at = finished_at
        self.error: BaseException | None = None
        self.finished_at: datetime | None = None

    def __call__(self) -> Any:
        try:
            return self._call()
        except BaseException as error:
            self.error = error
            raise

    def finish(self) -> datetime:
        """Note and return when the step ended."""
        self.finished_at = self._finished_at()
        return self.finished_at


class Attempts:
    """Make the attempts at the steps of a run.

    Args:
        state: of the run.
        writer: writes each attempt into the journal.
        patience: waits for the database.
        resources: of the worker: timing, and chance.
        undo_too: called with the name of a step in doubt, where the saga is
            decided.
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
        self._timing = resources.timing
        self._resting = Resting(state, writer, patience, longest=self._timing.longest_rest)
        self._undo_too = undo_too

    async def until_done(self, step: Step, context: Context, tries: Tries) -> Context:
        """Attempt a step until it is done.

        Args:
            step: forward or compensating.
            context: of the saga; the step gets a copy.
            tries: the attempts before.

        Returns:
            The step's changes of the context, as in the journal.

        Raises:
            Suspended: the run goes no further.
            StepFailed, Decided: the journal has the decision.
            asyncio.CancelledError: the event loop ends.
        """
        self._state.busy += 1  # who is alone may leave an answer unsettled; who is not may rest
        try:
            while True:
                result = await self._attempt(step, context, tries)
                if result is not None:
                    return result
        except (Suspended, Decided, StepFailed):
            raise
        except NoThreadLeft as error:
            raise self._state.suspended_by(str(error)) from error
        except asyncio.CancelledError:
            self._state.suspend("the worker is ending")
            raise
        except BaseException as error:
            # A failure of our own, even SystemExit: it ends this run, and neither worker nor saga.
            raise self._give_way(step, error) from error
        finally:
            self._state.busy -= 1

    async def _attempt(self, step: Step, context: Context, tries: Tries) -> Context | None:
        """Make a single attempt.

        Returns:
            The step's changes of the context; None where an attempt must follow.
        """
        if not step.is_external:
            # A local step commits by itself: the answer that led to it must be committed before.
            await self._writer.settle()
            self._state.stop_if_suspended()  # it may have been while this waited
        await self._stop_if_decided(step, tries)
        tries.begin()
        token = current_key.set(step_key(self._claimed.id, step.name, step.kind))
        named = current_step.set(f"{self._claimed.name} {self._claimed.key}: {step.log_name}")
        try:
            call = self._external if step.is_external else self._local
            result = await call(step, context, tries)
        except Suspended:
            raise
        except (_Conflict, CancelRequested):
            self._state.note_cancel(await self._writer.call(lookups.cancel_reason, self._claimed))
            tries.attempt -= 1  # nothing of it was written
            return None
        except Exception as error:
            failure = failure_of(error)
            if any(type(each) is NoThreadLeft for each in causes(error)):
                raise self._state.suspended_by(str(NoThreadLeft())) from error
            if step.is_external:
                await heal_after(error)
            # Beside a refusal out of a group, other calls may have had their effect.
            if step.is_external and (failure.is_group or not failure.is_no):
                tries.in_doubt = True
            if not await self._was_away(step, tries, failure):
                await self._failed(step, tries, failure)
            elif not step.is_external:
                tries.attempt -= 1  # nothing is left of it
            return None
        finally:
            current_key.reset(token)
            current_step.reset(named)
        return result

    def _give_way(self, step: Step, error: BaseException) -> Suspended:
        """Suspend the run after a failure of our own, and leave the saga to the next run."""
        suspended = self._state.suspended_by(failure_of(error).text)
        logger.error(
            "%s %s stops at %s, to be taken up again",
            *(self._claimed.name, self._claimed.key, step.label),
            exc_info=stand_in(error),
        )
        return suspended

    async def _stop_if_decided(self, step: Step, tries: Tries) -> None:
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

    async def _decide(self, step: Step, tries: Tries, reason: str, *, cancelled: bool) -> None:
        """Decide to undo the saga, and write the decision.

        Raises:
            Decided: always, unless the decision cannot be written.
        """
        self._state.failure = reason
        self._state.cancelled = cancelled
        await self._write_decision(Fail(reason, cancelled))
        reach(Point.FAILURE_DECIDED, step.label)
        self._undo_if_in_doubt(step, tries)
        raise Decided(reason)

    def _undo_if_in_doubt(self, step: Step, tries: Tries) -> None:
        if tries.in_doubt:
            self._undo_too(step.name)

    async def _local(self, step: Step, context: Context, tries: Tries) -> Context:
        """Attempt a local step, exactly once.

        Where the connection broke at the commit, the journal knows whether the commit was made.

        Returns:
            The step's changes of the context.

        Raises:
            _Conflict: a transaction elsewhere was preferred, or holds the saga's row; try again.
            CancelRequested: a cancel came before the pivot.
            Suspended: the run goes no further.
            Exception: from the step.
        """
        begins = step.is_pivot and step.kind is StepKind.FORWARD
        entry = Entry(
            saga=self._claimed,
            step=tries.entry(step, StepStatus.DONE),
            changes=(BeginPivot(),) if begins else (),
            unless_cancelled=begins,
        )
        # A context of its own: a step beside this one may change the shared one meanwhile.
        undoes = step.kind is StepKind.COMPENSATION
        call = partial(call_local, step.function, dict(context), undoes=undoes)
        work = _Work(call, self._state.finished_at)
        do = partial(
            local_step.do_locally, entry, work=work, timeout=step.timeout, finish=work.finish
        )
        while True:
            try:
                result, cancel_reason = await self._writer.call_foreign(do, still_for=step.timeout)
            except AWAY as error:
                is_steps = error is work.error
                if not is_steps and keeps_waiting(error):
                    # A statement of the journal's: it waited for the fence.
                    await self._patience.wait_for_row(error)
                    raise _Conflict from error
                # The server chooses the victim of a deadlock; NOWAIT is what a step asks for.
                is_own = is_steps and (is_of_another(error) or is_lock_not_available(error))
                if is_conflict(error) and not is_own:
                    # Not in a loop here: a cancel or the deadline may have come meanwhile.
                    pause = self._timing.conflict_pause * self._resources.jitter()
                    await self._patience.sleep(pause)
                    raise _Conflict from error
                if is_steps or not is_outage(error):
                    raise  # judged as what an external step raises is
                await self._patience.wait_out_outage(error)
            else:
                self._state.note_cancel(cancel_reason)
                reach(Point.STEP_DONE, step.label)
                return self._state.newest(result, work.finished_at)
            # The connection broke at the commit. This look waits for the row's lock, so it does not
            # miss a commit that is still under way.
            record = await self._writer.call(
                lookups.step_record, self._claimed, step.name, step.kind
            )
            if record is not None and record.status == StepStatus.DONE:
                reach(Point.STEP_DONE, step.label)
                return self._state.newest(record.result, record.finished_at)

    async def _external(self, step: Step, context: Context, tries: Tries) -> Context:
        """Attempt an external step: the start is in the journal before the call.

        Returns:
            The step's changes of the context. Where no step runs in parallel, the journal may not
            have them yet.

        Raises:
            CancelRequested: a cancel came before the start; the step was not called.
            Suspended: the run goes no further.
            Exception: from the step.
        """
        begins = step.is_pivot and step.kind is StepKind.FORWARD
        answer = await self._writer.append(
            *((BeginPivot(),) if begins else ()),
            step=tries.entry(step, StepStatus.STARTED),
            unless_cancelled=step.kind is StepKind.FORWARD and not self._state.failure,
        )
        if isinstance(answer, Cancelled):
            raise CancelRequested
        reach(Point.STARTED, step.label)
        result = await call_external(
            step.function,
            context,
            undoes=step.kind is StepKind.COMPENSATION,
            allowance=self._allowance(step),
            cancel_grace=self._timing.cancel_grace,
        )
        # Handed on as the journal has it, or the next step would see another value after a crash.
        encoded = codec.encode(result)
        reach(Point.CALLED, step.label)
        at = self._state.finished_at()
        done = tries.entry(step, StepStatus.DONE, result=encoded, finished_at=at)
        self._writer.append_nowait(done)
        if not self._state.is_alone:  # the next entry, which would settle this one, may be late
            await self._writer.settle()
        return self._state.newest(codec.decode(encoded), at)

    def _allowance(self, step: Step) -> Allowance:
        """Return the time for an attempt: the step's timeout, or less before the deadline."""
        left = self._state.seconds_left
        has_no_deadline = step.kind is StepKind.COMPENSATION or self._state.has_begun_pivot
        return Allowance(step.timeout, at_most=None if has_no_deadline else left)

    async def _was_away(self, step: Step, tries: Tries, failure: Failure) -> bool:
        """Tell whether our own database was away: such a failure spends no retry.

        The database may answer when asked; then the error tells whose database was away. A step
        that breaks our connection each time looks the same, and is not excused for ever.
        """
        error = failure.error
        ours = None if failure.is_no else our_outage(error)
        is_nobodys = is_databases(error) and is_outage(error) and alias_of(error) is None
        if ours is None and not is_nobodys:
            return False
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

    async def _failed(self, step: Step, tries: Tries, failure: Failure) -> None:
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
