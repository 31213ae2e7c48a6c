"""Attempt a step until the step is done, or the saga is decided.

A local step commits with its row in the journal; an external step's start is in the journal before
the call, and the answer after it. `decisions` says what follows from a failed attempt.
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
    causes,
    is_conflict,
    is_lock_not_available,
    is_of_another,
    is_outage,
    keeps_waiting,
)
from saga_runtime.database_threads import NoThreadLeft
from saga_runtime.logs import get_logger
from saga_runtime.text import one_line_error
from sagas.crash_points import Point, reach
from sagas.definition.current_step import current_key
from sagas.definition.identity import step_key
from sagas.definition.steps import Step
from sagas.errors import CancelRequested, ChainBroken, Decided, Suspended
from sagas.failures import StepFailed, failure_of, stand_in
from sagas.journal import codec, local_step, lookups
from sagas.journal.entries import BeginPivot, Cancelled, Entry
from sagas.models import StepKind, StepStatus
from sagas.run.calling import call_external, call_local
from sagas.run.chain import Chain
from sagas.run.decisions import Decisions
from sagas.run.journal_writer import JournalWriter
from sagas.run.patience import Patience
from sagas.run.plans import Plans
from sagas.run.resources import RunResources
from sagas.run.state import RunState
from sagas.run.tries import Tries

logger = get_logger(__name__)

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
        undo_too: called with the name of a step in doubt, where the saga is decided.
        plans: find what a step can share its transaction with.
    """

    def __init__(
        self,
        state: RunState,
        writer: JournalWriter,
        patience: Patience,
        resources: RunResources,
        *,
        undo_too: Callable[[str], None],
        plans: Plans,
    ) -> None:
        self._state = state
        self._claimed = state.claimed
        self._writer = writer
        self._patience = patience
        self._resources = resources
        self._timing = resources.timing
        self._plans = plans
        self._decisions = Decisions(state, writer, patience, resources, undo_too=undo_too)

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
        # A step alone need not wait for its answer's commit; the last of several to rest gives the
        # saga up.
        self._state.busy += 1
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
            # The answer that led to a local step must commit before it, or with it.
            shares = self._may_share(tries) and self._plans.of(step) is not None
            await self._writer.settle(but_held=shares)
            # A parallel step, or the worker's end, may have suspended the run during the wait.
            self._state.stop_if_suspended()
        await self._decisions.stop_if_decided(step, tries)
        tries.begin()
        token = current_key.set(step_key(self._claimed.id, step.name, step.kind))
        named = current_step.set(f"{self._claimed.name} {self._claimed.key}: {step.log_name}")
        try:
            call = self._external if step.is_external else self._local
            result = await call(step, context, tries)
        except Suspended:
            raise
        except (_Conflict, CancelRequested, ChainBroken) as error:
            self._note_broken_chain(step, error)
            self._state.note_cancel(await self._writer.call(lookups.cancel_reason, self._claimed))
            # Nothing of the attempt was written, so the number is free for the next one.
            tries.attempt -= 1
            return None
        except Exception as error:  # noqa: BLE001 - whatever a step raises is judged
            await self._handle_error(step, tries, error)
            return None
        finally:
            current_key.reset(token)
            current_step.reset(named)
        return result

    async def _handle_error(self, step: Step, tries: Tries, error: Exception) -> None:
        """Decide what follows from an attempt that has raised; return where another one follows.

        Raises:
            Suspended: the run goes no further.
            StepFailed: no attempt is left.
        """
        if await self._finds_cancel(step):
            # Nothing of the attempt was written, so the number is free for the next one.
            tries.attempt -= 1
            return
        failure = failure_of(error)
        if any(type(each) is NoThreadLeft for each in causes(error)):
            raise self._state.suspended_by(str(NoThreadLeft())) from error
        if step.is_external:
            await heal_after(error)
        # Beside a refusal out of a group, other calls may have had their effect.
        if step.is_external and (failure.is_group or not failure.is_no):
            tries.in_doubt = True
        if not await self._decisions.is_excused(step, tries, failure):
            await self._decisions.handle_failure(step, tries, failure)
        elif not step.is_external:
            # The transaction was rolled back, the attempt's row with it.
            tries.attempt -= 1

    async def _finds_cancel(self, step: Step) -> bool:
        """Tell whether a cancel came before a local step that has failed.

        Where the answer of the call before waits for that step, nobody has looked since.
        """
        if step.is_external or self._writer.held is None:
            return False
        await self._writer.settle()
        return self._state.is_cancel_due

    def _note_broken_chain(self, step: Step, error: Exception) -> None:
        """Do the steps one by one from now on: whatever has broken a chain comes again there."""
        if not isinstance(error, ChainBroken):
            return
        self._state.commits_together = False
        if not self._claimed.past_pivot:
            # It was begun in the transaction that was rolled back.
            self._state.pivots_begun.discard(step.name)
        logger.info(
            "%s %s: the steps from %s on do not commit together (%s), and are done one by one",
            *(self._claimed.name, self._claimed.key, step.name),
            one_line_error(stand_in(error.__cause__ or error)),
        )

    def _give_way(self, step: Step, error: BaseException) -> Suspended:
        """Suspend the run after a failure of our own, and leave the saga to the next run."""
        suspended = self._state.suspended_by(failure_of(error).text)
        logger.error(
            "%s %s stops at %s, to be taken up again",
            *(self._claimed.name, self._claimed.key, step.label),
            exc_info=stand_in(error),
        )
        return suspended

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
        chain = self._chain(step, context, tries)
        begins = step.kind is StepKind.FORWARD and (step.is_pivot or bool(chain and chain.pivots))
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
            local_step.do_locally,
            entry,
            work=work,
            timeout=step.timeout,
            finish=work.finish,
            together=chain,
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
                # The caller judges it as it judges the errors of external steps.
                if is_steps or not is_outage(error):
                    raise
                await self._patience.wait_out_outage(error)
            else:
                self._state.note_cancel(cancel_reason)
                self._note_commit(chain)
                reach(Point.STEP_DONE, step.label)
                return self._state.newest(result, work.finished_at)
            found = await self._found_done(step, work, chain)
            if found is not None:
                return found

    def _may_share(self, tries: Tries) -> bool:
        """Tell whether a step's next attempt may share its transaction."""
        return self._state.commits_together and not tries.failures

    def _chain(self, step: Step, context: Context, tries: Tries) -> Chain | None:
        """Return what the step's first attempt can share its transaction with, if anything."""
        plan = self._plans.of(step) if self._may_share(tries) else None
        answer = self._writer.held
        if plan is None or (plan.is_empty and answer is None):
            return None
        return Chain(plan, step, context, self._state, self._timing, answer=answer)

    def _note_commit(self, chain: Chain | None) -> None:
        if chain:
            self._writer.note_held_written()
            chain.note_commit()

    async def _found_done(self, step: Step, work: _Work, chain: Chain | None) -> Context | None:
        """Look whether a local step was committed, after the connection broke at the commit.

        Returns:
            The step's changes of the context; None where the step is to be done again.

        Raises:
            ChainBroken: nothing was committed.
            Suspended: another worker has done the step, and the saga is that worker's.
        """
        # The look waits for the row's lock, so it does not miss a commit that is still under way.
        record = await self._writer.call(lookups.step_record, self._claimed, step.name, step.kind)
        if record is None or record.status != StepStatus.DONE:
            if chain:
                # Not again as a whole: perhaps its commit fails each time, by what was deferred.
                raise ChainBroken
            return None
        if chain:
            if record.finished_at != work.finished_at:
                # That row says nothing of the steps which follow.
                raise self._state.suspended_by("another worker has done its step")
            self._note_commit(chain)
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
        await self._start(step, tries)
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
        if self._state.is_alone and self._may_share(tries) and self._plans.lets_answer_wait(step):
            self._writer.hold(done)
        else:
            self._writer.append_nowait(done)
        # Alone, the next step's entry settles this one. Beside a slow step that entry comes late,
        # and a crash meanwhile would repeat the call.
        if not self._state.is_alone:
            await self._writer.settle()
        return self._state.newest(codec.decode(encoded), at)

    async def _start(self, step: Step, tries: Tries) -> None:
        """Write the start of an external step, unless the local step before has written it.

        Raises:
            CancelRequested: a cancel came before; nothing is written.
            Suspended: the run goes no further.
        """
        started_at = self._state.started_ahead.pop(step.name, None)
        if started_at is not None:
            tries.started_at, tries.in_doubt = started_at, False
            return
        begins = step.is_pivot and step.kind is StepKind.FORWARD
        answer = await self._writer.append(
            *((BeginPivot(),) if begins else ()),
            step=tries.entry(step, StepStatus.STARTED),
            unless_cancelled=step.kind is StepKind.FORWARD and not self._state.failure,
        )
        if isinstance(answer, Cancelled):
            raise CancelRequested

    def _allowance(self, step: Step) -> Allowance:
        """Return the time for an attempt: the step's timeout, or less before the deadline."""
        left = self._state.seconds_left
        has_no_deadline = step.kind is StepKind.COMPENSATION or self._state.has_begun_pivot
        return Allowance(step.timeout, at_most=None if has_no_deadline else left)
