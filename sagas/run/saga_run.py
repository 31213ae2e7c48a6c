"""Run one claimed saga in this worker, from its claim to its last journal entry."""

from sagaz import Saga as SagaClass

from saga_runtime.abandoned_calls import current_abandoned_calls
from saga_runtime.logs import get_logger
from sagas.crash_points import Point, reach
from sagas.definition.current_step import current_threads
from sagas.definition.hooks import Ending, SagaOutcome
from sagas.definition.registry import has_hook
from sagas.definition.saga_types import SagaType
from sagas.errors import CancelRequested, EndRefused, LeaseLost
from sagas.failures import failure_of, stand_in
from sagas.journal import end_conditions, writing
from sagas.journal.entries import End, Fail
from sagas.journal.records import Claimed
from sagas.run.calling import visible
from sagas.run.closing import Closing, Parking
from sagas.run.engine import Context, DrivenSaga
from sagas.run.journal_writer import JournalWriter
from sagas.run.patience import Patience
from sagas.run.resources import RunResources
from sagas.run.state import RunState

logger = get_logger(__name__)


class SagaRun:
    """Run one claimed saga to its end, or to where it must stop.

    Args:
        claimed: the saga.
        saga_type: its registered class, in the version with which it began.
        resources: of the worker.
    """

    def __init__(self, claimed: Claimed, saga_type: SagaType, resources: RunResources) -> None:
        self._claimed = claimed
        self._type = saga_type
        self._resources = resources
        self._state = RunState(claimed)
        self._patience = Patience(self._state, threads=resources.journal, timing=resources.timing)
        self._writer = JournalWriter(self._state, self._patience, resources)
        self._closing = Closing(claimed, self._writer, self._patience, resources)
        # This run is suspended where it parks, and its own writer would wait for nothing then.
        self._parking = Parking(claimed, resources)

    @property
    def hangs(self) -> bool:
        """Whether a call of this run has been given up that may still commit."""
        return self._state.hangs or self._parking.hangs

    def hurry(self) -> None:
        """Wait for nothing any more: between two attempts, stop, and leave it to another worker."""
        self._state.hurry.set()
        self._parking.hurry()

    def suspend(self, reason: str) -> None:
        """Stop after the step that runs; another worker goes on from there."""
        self._state.suspend(reason)

    async def execute(self) -> Ending | None:
        """Run the saga.

        Returns:
            How it ended; None where it was suspended: it is to be claimed again.

        Raises:
            LeaseLost, Suspended: nothing was written.
        """
        if self._claimed.definition_hash != self._type.definition_hash:
            await self._writer.call(writing.adopt, self._claimed, self._type.definition_hash)
        try:
            saga = self._type.instances.new()
        except BaseException as error:
            logger.exception(
                "%s %s: its saga cannot be made",
                *(self._claimed.name, self._claimed.key),
                exc_info=stand_in(error),
            )
            self._state.park(f"its saga cannot be made: {failure_of(error).text}")
            return await self._finish(Ending.PARKED, self._claimed.context, ())
        current_abandoned_calls.set(self._resources.abandoned_calls)  # in this task, and its calls
        token = current_threads.set(self._resources.calls)
        try:
            return await self._run(saga)
        finally:
            current_threads.reset(token)
            await self._writer.close()

    async def _run(self, saga: SagaClass) -> Ending | None:
        driven = DrivenSaga(saga, self._state, self._writer, self._patience, self._resources)
        ending = await driven.run_steps()
        try:
            return await self._end(ending, driven.step_names)
        except CancelRequested:
            await self._undo_behind_the_last_step(driven)
            return await self._end(Ending.ROLLED_BACK, driven.step_names)

    async def _undo_behind_the_last_step(self, driven: DrivenSaga) -> None:
        """Undo a saga of which a cancel came when no step was left that would have looked."""
        reason = await self._writer.call(writing.cancel_reason, self._claimed)
        self._state.note_cancel(reason)
        self._state.failure, self._state.cancelled = reason, True
        await self._writer.append(Fail(reason, cancelled=True))
        reach(Point.FAILURE_DECIDED)
        await driven.undo_all()

    async def _end(self, ending: Ending, steps: tuple[str, ...]) -> Ending | None:
        """End the saga so, or park or leave it, as its run has come to.

        Args:
            ending: how its steps have ended.
            steps: the names of all its forward steps.

        Returns:
            How it ended; None where it is left.

        Raises:
            CancelRequested: nothing is written, it is not to be completed.
        """
        if self._state.parked:
            ending = Ending.PARKED
        elif self._state.suspended:
            logger.info("%s %s: %s", self._claimed.name, self._claimed.key, self._state.suspended)
            return None
        return await self._finish(ending, visible(self._state.context, steps), steps)

    async def _finish(
        self, ending: Ending, context: Context, steps: tuple[str, ...]
    ) -> Ending | None:
        """Write the saga's end.

        Returns:
            How it ended; None where another worker has it.

        Raises:
            CancelRequested: nothing is written, it is not to be completed.
        """
        outcome = self._outcome(ending, context)
        try:
            await self._writer.settle()
            if ending is Ending.PARKED:
                await self._parking.park(outcome)
            elif has_hook(outcome.name, ending):
                return await self._finish_with_hook(outcome, steps)
            else:
                reach(Point.BEFORE_TERMINAL_COMMIT)
                end = End(ending, steps)
                await self._writer.append(end, unless_cancelled=ending is Ending.COMPLETED)
        except LeaseLost as error:
            logger.info("%s", error)
            return None
        except EndRefused:
            return await self._park_open(ending, context, steps)
        reach(Point.AFTER_TERMINAL_COMMIT)
        return ending

    def _outcome(self, ending: Ending, context: Context) -> SagaOutcome:
        """Return what the app's hooks are told."""
        reason = self._state.parked or ("" if ending is Ending.COMPLETED else self._state.failure)
        return SagaOutcome(
            saga_id=self._claimed.id,
            name=self._claimed.name,
            key=self._claimed.key,
            ending=ending,
            context=context,
            reason=reason,
            cancelled=self._state.cancelled and ending is Ending.ROLLED_BACK,
        )

    async def _park_open(
        self, ending: Ending, context: Context, steps: tuple[str, ...]
    ) -> Ending | None:
        """Park a saga of which the journal does not have what this run takes for done.

        A person must look: run again, it would come to the same end.
        """
        self._state.parked = await self._writer.call(
            end_conditions.what_is_open, self._claimed, ending, steps
        )
        return await self._finish(Ending.PARKED, context, steps)

    async def _finish_with_hook(
        self, outcome: SagaOutcome, steps: tuple[str, ...]
    ) -> Ending | None:
        """Write the saga's end with its hook; one that keeps failing parks the saga.

        Parked is set behind the last try: a cancel between two of them leads to another end.
        """
        refusal = await self._closing.finish(outcome, steps=steps)
        if not refusal:
            reach(Point.AFTER_TERMINAL_COMMIT)
            return outcome.ending
        self._state.parked = refusal
        return await self._finish(Ending.PARKED, outcome.context, steps)
