"""Drive sagaz's engine through one saga, each of its steps wrapped with the journal.

Nothing in the journal is done again: a `done` step hands out the recorded result, a recorded
failure is raised again. So an interrupted saga is resumed by running the saga once more from the
start.
"""

import asyncio
from functools import partial
from typing import Any

from sagaz import Saga as SagaClass
from sagaz.core.decorators import ExecutionEngine, SagaStepDefinition

from saga_runtime.logs import get_logger
from sagas.crash_points import Point, reach
from sagas.definition.hooks import Ending
from sagas.definition.steps import Step, compensation_step, forward_step
from sagas.errors import Decided
from sagas.failures import StepFailed, failure_of, stand_in
from sagas.journal.records import StepRecord
from sagas.models import StepStatus
from sagas.run.attempts import Attempts
from sagas.run.journal_writer import JournalWriter
from sagas.run.patience import Patience
from sagas.run.plans import Plans
from sagas.run.resources import RunResources
from sagas.run.sagaz_hooks import ReplayFilter
from sagas.run.state import RunState
from sagas.run.tries import Tries
from sagas.run.undoing import undo_all_that_is_known

logger = get_logger(__name__)

Context = dict[str, Any]


class DrivenSaga:
    """Run the steps of a saga's instance by sagaz's engine.

    Args:
        saga: an instance of no other run.
        state: of the run.
        writer: writes each attempt into the journal.
        patience: waits for the database.
        resources: of the worker.

    Attributes:
        step_names: of all forward steps.
    """

    def __init__(
        self,
        saga: SagaClass,
        state: RunState,
        writer: JournalWriter,
        patience: Patience,
        resources: RunResources,
    ) -> None:
        self._saga = saga
        self._state = state
        self._claimed = state.claimed
        self._steps: dict[str, Step] = {}
        self._attempts = Attempts(
            state,
            writer,
            patience,
            resources,
            undo_too=self._undo_too,
            plans=Plans(saga, self._steps, state.claimed),
        )
        self._knows_what_to_undo = False
        self.step_names = tuple(step.step_id for step in saga.get_steps())
        for definition in saga.get_steps():
            self._wrap(definition)
        ReplayFilter(state).silence_replays(saga)

    async def run_steps(self) -> Ending:
        """Run the steps, and undo them where a step has failed.

        Returns:
            How the saga is to end, unless the run is suspended or parked.
        """
        try:
            # `Saga.run` is disabled, see `sagas.definition.sagaz_entry_points`.
            engine = ExecutionEngine(self._saga)
            context = await engine.run(self._claimed.context, saga_id=str(self._claimed.id))
        except Exception as error:
            if not self._state.failure and not self._state.suspended:
                # Not a step's: nothing is journalled that decides against it.
                names = (self._claimed.name, self._claimed.key)
                logger.exception("%s %s: sagaz fails", *names, exc_info=stand_in(error))
                self._state.park(f"sagaz failed, and no step of it: {failure_of(error).text}")
            return Ending.ROLLED_BACK
        self._state.context = context
        if not self._state.failure:
            return Ending.COMPLETED
        await self.undo_all()
        return Ending.ROLLED_BACK

    async def undo_all(self) -> None:
        """Undo every done step: sagaz undoes only where a step fails."""
        graph = self._saga._compensation_graph  # noqa: SLF001 - no public way
        # A step's compensation waits for those of the steps that depend on it; the rest of a level
        # runs side by side, and one that fails parks the saga without stopping its neighbours.
        for level in graph.get_compensation_order():
            undoing = (self._saga._execute_compensation(step) for step in level)  # noqa: SLF001
            await asyncio.gather(*undoing, return_exceptions=True)

    def _wrap(self, definition: SagaStepDefinition) -> None:
        """Replace a step's functions with journalling functions.

        sagaz's timeouts are off: sagaz would give up while a thread still commits.
        """
        there, back = forward_step(definition), compensation_step(definition)
        self._steps[there.name] = there
        record = self._claimed.steps.get((there.name, there.kind))
        # An earlier run has begun it: nothing is to be undone, whichever step is replayed first.
        if there.is_pivot and record is not None and self._claimed.past_pivot:
            self._state.pivots_begun.add(there.name)
        definition.forward_fn = partial(self._forward, there)
        definition.compensation_fn = partial(self._compensate, back)
        definition.timeout_seconds = None
        definition.compensation_timeout_seconds = None

    async def _forward(self, step: Step, context: Context) -> Any:
        self._state.context = context
        if not self._knows_what_to_undo:
            # Not before: sagaz forgets at its start.
            self._knows_what_to_undo = True
            undo_all_that_is_known(self._saga, self._claimed)
        if step.name in self._state.done_ahead:
            reach(Point.STEP_DONE, step.label)
            return self._state.newest(*self._state.done_ahead.pop(step.name))
        record = self._claimed.steps.get((step.name, step.kind))
        if record is not None and record.status == StepStatus.DONE:
            return self._state.newest(record.result, record.finished_at)
        self._state.stop_if_suspended()
        if self._state.failure:
            return self._replay_failure(step, record)
        tries = Tries.of(record)
        # Its start is in the journal: where the saga is decided before the call, undo it too.
        tries.in_doubt |= step.name in self._state.started_ahead
        return await self._attempts.until_done(step, context, tries)

    def _replay_failure(self, step: Step, record: StepRecord | None) -> None:
        """Raise the recorded failure of an interrupted saga: never decide anew.

        A step in doubt is undone too, though sagaz would skip such a step.

        Raises:
            Decided: always.
        """
        is_in_doubt = record and record.status in (StepStatus.UNKNOWN, StepStatus.STARTED)
        if is_in_doubt or step.name in self._state.started_ahead:
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
            # A lost lease, or a worker that stops, says nothing against the compensation.
            if not self._state.suspended:
                failure = error.failure if isinstance(error, StepFailed) else failure_of(error)
                self._state.park(f"undoing {step.name} keeps failing: {failure.text}")
            raise

    def _undo_too(self, step: str) -> None:
        self._saga._compensation_graph.mark_step_executed(step)  # noqa: SLF001 - no public way
