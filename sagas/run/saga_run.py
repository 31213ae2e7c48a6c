"""One saga in this worker: sagaz's engine drives it, and each step is wrapped with the journal.

What the journal has is not done again: a step that is `done` hands out its recorded result, a
failure that decided the saga is raised again. So a saga that was interrupted anywhere is resumed by
running it once more from the start.
"""

import asyncio
from functools import partial
from typing import Any

from sagaz.core.decorators import ExecutionEngine, SagaStepDefinition

from saga_runtime.abandoned_calls import AbandonedCalls, current_abandoned_calls
from saga_runtime.database_threads import Threads
from saga_runtime.logs import get_logger
from sagas.crash_points import Point, reach
from sagas.definition.current_step import current_threads
from sagas.definition.hooks import Ending, SagaOutcome
from sagas.definition.registry import has_hook
from sagas.definition.saga_types import SagaType
from sagas.definition.steps import Step, compensation_step, forward_step
from sagas.errors import CancelRequested, Decided, EndRefused, LeaseLost
from sagas.failures import StepFailed, failure_of, stand_in
from sagas.journal import end_conditions, writing
from sagas.journal.entries import End, Fail
from sagas.journal.group_commit import GroupCommit
from sagas.journal.records import Claimed, StepRecord
from sagas.models import StepStatus
from sagas.run.attempts import Attempts
from sagas.run.calling import visible
from sagas.run.closing import Closing
from sagas.run.journal_writer import Writer
from sagas.run.sagaz_hooks import ReplayFilter
from sagas.run.state import RunState
from sagas.run.tries import Tries
from sagas.run.undoing import undo_all_that_is_known

logger = get_logger(__name__)

Context = dict[str, Any]


class SagaRun:
    """Runs one claimed saga to its end, or to where it must stop."""

    def __init__(
        self,
        claimed: Claimed,
        saga_type: SagaType,
        *,
        group: GroupCommit,
        journal_threads: Threads,
        call_threads: Threads,
        abandoned_calls: AbandonedCalls,
    ) -> None:
        self._claimed = claimed
        self._type = saga_type
        self._call_threads = call_threads
        self._abandoned_calls = abandoned_calls
        self._state = RunState(claimed)
        self._parking: RunState | None = None
        self._is_hurried = False
        self._writer_for = partial(Writer, group=group, threads=journal_threads)
        self._writer = self._writer_for(self._state)
        self._attempts = Attempts(self._state, self._writer, undo_too=self._undo_too)
        self._knows_what_to_undo = False

    @property
    def _names(self) -> tuple[str, str]:
        return self._claimed.name, self._claimed.key

    @property
    def hangs(self) -> bool:
        """Whether a call of it has been given up that may still commit."""
        return self._state.hangs

    def hurry(self) -> None:
        """Wait for nothing any more: between two attempts, stop, and leave it to another worker."""
        self._is_hurried = True
        self._state.hurry.set()
        if self._parking is not None:
            self._parking.hurry.set()

    def suspend(self, reason: str) -> None:
        """Stop after the step that runs; another worker goes on from there."""
        self._state.suspend(reason)

    async def execute(self) -> Ending | None:
        """Run it; None where it was suspended: it is to be claimed again."""
        if self._claimed.definition_hash != self._type.definition_hash:
            await self._writer.call(writing.adopt, self._claimed, self._type.definition_hash)
        try:
            self._saga = self._type.instances.new()
        except BaseException as error:
            logger.exception(
                "%s %s: its saga cannot be made", *self._names, exc_info=stand_in(error)
            )
            self._state.park(f"its saga cannot be made: {failure_of(error).text}")
            return await self._finish(Ending.PARKED, self._claimed.context)
        self._step_names = tuple(step.step_id for step in self._saga.get_steps())
        for definition in self._saga.get_steps():
            self._wrap(definition)
        ReplayFilter(self._state).silence_replays(self._saga)
        current_abandoned_calls.set(self._abandoned_calls)  # in this task, and what it calls
        token = current_threads.set(self._call_threads)
        try:
            ending = await self._run_steps()
            try:
                return await self._end(ending)
            except CancelRequested:
                return await self._end(await self._cancel_behind_the_last_step())
        finally:
            current_threads.reset(token)
            await self._writer.close()

    async def _run_steps(self) -> Ending:
        try:
            engine = ExecutionEngine(
                self._saga
            )  # `Saga.run` is disabled, see `sagas.definition.sagaz_entry_points`
            context = await engine.run(self._claimed.context, saga_id=str(self._claimed.id))
        except Exception as error:
            if not self._state.failure and not self._state.suspended:
                # Not a step's: nothing is journalled that decides against it.
                logger.exception("%s %s: sagaz fails", *self._names, exc_info=stand_in(error))
                self._state.park(f"sagaz failed, and no step of it: {failure_of(error).text}")
            return Ending.ROLLED_BACK
        self._state.context = context
        if not self._state.failure:
            return Ending.COMPLETED
        await self._undo_all()
        return Ending.ROLLED_BACK

    async def _cancel_behind_the_last_step(self) -> Ending:
        """A cancel came when no step was left that would have looked."""
        reason = await self._writer.call(writing.cancel_reason, self._claimed)
        self._state.note_cancel(reason)
        self._state.failure, self._state.cancelled = reason, True
        await self._writer.write(Fail(reason, cancelled=True))
        reach(Point.FAILURE_DECIDED)
        await self._undo_all()
        return Ending.ROLLED_BACK

    async def _undo_all(self) -> None:
        """sagaz undoes only where a step fails; here each of them is done."""
        graph = self._saga._compensation_graph  # noqa: SLF001 - no public way
        for level in graph.get_compensation_order():
            undoing = (self._saga._execute_compensation(step) for step in level)  # noqa: SLF001
            await asyncio.gather(*undoing, return_exceptions=True)

    async def _end(self, ending: Ending) -> Ending | None:
        if self._state.parked:
            ending = Ending.PARKED
        elif self._state.suspended:
            logger.info("%s %s: %s", self._claimed.name, self._claimed.key, self._state.suspended)
            return None
        return await self._finish(ending, visible(self._state.context, self._step_names))

    async def _finish(self, ending: Ending, context: Context) -> Ending | None:
        """Raises:
        CancelRequested: nothing is written, it is not to be completed.
        """
        reason = self._state.parked or ("" if ending is Ending.COMPLETED else self._state.failure)
        outcome = SagaOutcome(
            saga_id=self._claimed.id,
            name=self._claimed.name,
            key=self._claimed.key,
            ending=ending,
            context=context,
            reason=reason,
            cancelled=self._state.cancelled and ending is Ending.ROLLED_BACK,
        )
        try:
            await self._writer.settle()
            if ending is Ending.PARKED:
                await self._park(outcome)
            elif has_hook(outcome.name, ending):
                return await self._finish_with_hook(outcome)
            else:
                reach(Point.BEFORE_TERMINAL_COMMIT)
                end = End(ending, self._step_names)
                await self._writer.write(end, unless_cancelled=ending is Ending.COMPLETED)
        except LeaseLost as error:
            logger.info("%s", error)
            return None
        except EndRefused:
            return await self._park_open(ending, context)
        reach(Point.AFTER_TERMINAL_COMMIT)
        return ending

    async def _park_open(self, ending: Ending, context: Context) -> Ending | None:
        """The journal does not have what this run takes for done. A person must look: run again, it
        would come to the same end."""
        self._state.parked = await self._writer.call(
            end_conditions.what_is_open, self._claimed, ending, self._step_names
        )
        return await self._finish(Ending.PARKED, context)

    async def _park(self, outcome: SagaOutcome) -> None:
        # This run is suspended by now, and its writer would wait for nothing.
        state = self._parking = RunState(self._claimed)
        if self._is_hurried:
            state.hurry.set()
        try:
            await Closing(self._claimed, self._writer_for(state)).park(outcome)
        finally:
            self._state.hangs = self._state.hangs or state.hangs

    async def _finish_with_hook(self, outcome: SagaOutcome) -> Ending | None:
        """A hook that keeps failing parks the saga, which has ended all but for it. Parked is set
        behind the last try: a cancel between two of them leads to another end."""
        told = await Closing(self._claimed, self._writer).finish(outcome, steps=self._step_names)
        if not told:
            reach(Point.AFTER_TERMINAL_COMMIT)
            return outcome.ending
        self._state.parked = told
        return await self._finish(Ending.PARKED, outcome.context)

    def _wrap(self, definition: SagaStepDefinition) -> None:
        """Replace a step's functions with ones that journal; sagaz's timeouts are off, they would
        give up while a thread still commits."""
        there, back = forward_step(definition), compensation_step(definition)
        record = self._claimed.steps.get((there.name, there.kind))
        if there.is_pivot and record is not None and self._claimed.past_pivot:
            self._state.pivots_begun.add(there.name)
        definition.forward_fn = partial(self._forward, there)
        definition.compensation_fn = partial(self._compensate, back)
        definition.timeout_seconds = None
        definition.compensation_timeout_seconds = None

    async def _forward(self, step: Step, context: Context) -> Any:
        self._state.context = context
        if not self._knows_what_to_undo:
            self._knows_what_to_undo = True
            undo_all_that_is_known(self._saga, self._claimed)
        record = self._claimed.steps.get((step.name, step.kind))
        if record is not None and record.status == StepStatus.DONE:
            return self._state.newest(record.result, record.finished_at)
        self._state.stop_if_suspended()
        if self._state.failure:
            return self._replay_failure(step, record)
        return await self._attempts.until_done(step, context, Tries.of(record))

    def _replay_failure(self, step: Step, record: StepRecord | None) -> None:
        """The saga had failed when it was interrupted: never decide anew. A step that may have had
        its effect is undone too, though sagaz would skip it."""
        if record is not None and record.status in (StepStatus.UNKNOWN, StepStatus.STARTED):
            self._undo_too(step.name)
        raise Decided(self._state.failure)

    async def _compensate(self, step: Step, context: Context) -> None:
        self._state.stop_if_suspended()
        record = self._claimed.steps.get((step.name, step.kind))
        if record is not None and record.status in (StepStatus.DONE, StepStatus.SKIPPED):
            context.update(self._state.newest(record.result, record.finished_at))
            return
        try:
            context.update(await self._attempts.until_done(step, context, Tries.of(record)))
        except Exception as error:
            if not self._state.suspended:
                told = error.failure if isinstance(error, StepFailed) else failure_of(error)
                self._state.park(f"undoing {step.name} keeps failing: {told.text}")
            raise

    def _undo_too(self, step: str) -> None:
        self._saga._compensation_graph.mark_step_executed(step)  # noqa: SLF001 - no public way
