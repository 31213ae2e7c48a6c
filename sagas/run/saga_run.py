"""Run a claimed saga in this worker, from the claim to the last journal entry."""

from typing import assert_never

from sagaz import Saga as SagaClass

from saga_runtime.abandoned_calls import current_abandoned_calls
from saga_runtime.logs import get_logger
from sagas.crash_points import Point, reach
from sagas.definition.current_step import current_threads
from sagas.definition.hooks import Ending, SagaOutcome
from sagas.definition.registry import has_hook
from sagas.definition.saga_types import SagaType
from sagas.failures import failure_of, stand_in
from sagas.journal import end_conditions, writing
from sagas.journal.entries import Cancelled, End, Fail, Refused, Written
from sagas.journal.records import Claimed
from sagas.run.calling import visible
from sagas.run.closing import Closing, HookKeepsFailing, Parking
from sagas.run.engine import Context, DrivenSaga
from sagas.run.journal_writer import Answer, JournalWriter
from sagas.run.patience import Patience
from sagas.run.resources import RunResources
from sagas.run.state import RunState

logger = get_logger(__name__)


class SagaRun:
    """Run a claimed saga to the end, or as far as possible.

    Args:
        claimed: the saga.
        saga_type: the registered class, in the saga's version.
        resources: of the worker.
    """

    def __init__(self, claimed: Claimed, saga_type: SagaType, resources: RunResources) -> None:
        self._claimed = claimed
        self._type = saga_type
        self._resources = resources
        self._state = RunState(claimed)
        # Where a worker was lost, perhaps to one of several steps, they are done one by one.
        self._state.commits_together = resources.commits_together and not claimed.takeovers
        self._patience = Patience(self._state, threads=resources.journal, timing=resources.timing)
        self._writer = JournalWriter(self._state, self._patience, resources)
        self._closing = Closing(claimed, self._writer, self._patience, resources)
        # This run is suspended where it parks, and its own writer would wait for nothing then.
        self._parking = Parking(claimed, resources)

    @property
    def hangs(self) -> bool:
        """Tell whether a call hangs, and may still commit."""
        return self._state.hangs or self._parking.hangs

    def hurry(self) -> None:
        """End every wait: between two attempts, stop, and leave the saga to the next worker."""
        self._state.hurry.set()
        self._parking.hurry()

    def suspend(self, reason: str) -> None:
        """Stop after the running step; the next worker goes on from there."""
        self._state.suspend(reason)

    async def execute(self) -> Ending | None:
        """Run the saga.

        Returns:
            How the saga ended; None where the run was suspended: a worker is to claim it again.

        Raises:
            Suspended: the lease is lost, or the worker is to stop.
        """
        # Of a saga with steps in the journal the worker has made sure that they are the same.
        if self._claimed.definition_hash != self._type.definition_hash:
            await self._writer.call(
                writing.adopt_definition, self._claimed, self._type.definition_hash
            )
        try:
            saga = self._type.instances.new()
        except BaseException as error:
            logger.exception(
                "%s %s: its saga cannot be made",
                *(self._claimed.name, self._claimed.key),
                exc_info=stand_in(error),
            )
            self._state.park(f"its saga cannot be made: {failure_of(error).text}")
            return await self._park(self._claimed.context_so_far)
        # In this task, and in those that copy its context: the calls of steps.
        current_abandoned_calls.set(self._resources.abandoned_calls)
        token = current_threads.set(self._resources.calls)
        try:
            return await self._run(saga)
        finally:
            current_threads.reset(token)
            await self._writer.close()

    async def _run(self, saga: SagaClass) -> Ending | None:
        driven = DrivenSaga(saga, self._state, self._writer, self._patience, self._resources)
        ending = await driven.run_steps()
        while isinstance(ended := await self._end(ending, driven.step_names), Cancelled):
            # Accepted between the last step's look and the transaction that ends the saga.
            await self._undo_behind_the_last_step(driven, ended.reason)
            ending = Ending.ROLLED_BACK
        return ended

    async def _undo_behind_the_last_step(self, driven: DrivenSaga, reason: str) -> None:
        """Undo a saga after a cancel that came when no step was left to look for cancels."""
        self._state.note_cancel(reason)
        self._state.failure, self._state.cancelled = reason, True
        await self._writer.append(Fail(reason, cancelled=True))
        reach(Point.FAILURE_DECIDED)
        await driven.undo_all()

    async def _end(self, ending: Ending, steps: tuple[str, ...]) -> Ending | Cancelled | None:
        """End the saga, or park or leave the saga where the run says so.

        Args:
            ending: of the steps.
            steps: the names of all forward steps.

        Returns:
            How the saga ended; a cancel where the saga must not be completed; None where the saga
            is left.
        """
        if self._state.has_ended:
            reach(Point.AFTER_TERMINAL_COMMIT)
            return Ending.COMPLETED
        if self._state.parked:
            ending = Ending.PARKED
        elif self._state.suspended:
            logger.info("%s %s: %s", self._claimed.name, self._claimed.key, self._state.suspended)
            return None
        return await self._finish(ending, visible(self._state.context, steps), steps)

    async def _finish(
        self, ending: Ending, context: Context, steps: tuple[str, ...]
    ) -> Ending | Cancelled:
        """Write the saga's end, or park a saga that cannot end so.

        Returns:
            How the saga ended; a cancel where the saga must not be completed.

        Raises:
            Suspended: nothing is written; the lease is lost, or the worker is to stop.
        """
        # The hook, and the condition of the end, must find the last step's answer.
        await self._writer.settle()
        if ending is Ending.PARKED:
            return await self._park(context)
        answer = await self._write_end(self._state.outcome(ending, context), steps)
        match answer:
            case Written():
                reach(Point.AFTER_TERMINAL_COMMIT)
                return ending
            case Cancelled():
                return answer
            case Refused():
                # The journal does not have what the run took for done. A person must look: a
                # further run would come to the same end.
                self._state.parked = await self._writer.call(
                    end_conditions.what_is_open, self._claimed, ending, steps
                )
            case HookKeepsFailing(reason):
                # Not before the last try: a cancel between two tries leads to a different end.
                self._state.parked = reason
            case _:
                assert_never(answer)
        return await self._park(context)

    async def _park(self, context: Context) -> Ending:
        """Park the saga, for the reason in the run's state.

        Raises:
            Suspended: nothing is written; the lease is lost, or the worker is to stop.
        """
        await self._parking.park(self._state.outcome(Ending.PARKED, context))
        reach(Point.AFTER_TERMINAL_COMMIT)
        return Ending.PARKED

    async def _write_end(
        self, outcome: SagaOutcome, steps: tuple[str, ...]
    ) -> Answer | HookKeepsFailing:
        """Write the saga's last transaction, with the app's hook where the app has one."""
        if has_hook(outcome.name, outcome.ending):
            return await self._closing.finish(outcome, steps=steps)
        reach(Point.BEFORE_TERMINAL_COMMIT)
        end = End(outcome.ending, steps)
        is_completed = outcome.ending is Ending.COMPLETED
        return await self._writer.append(end, unless_cancelled=is_completed)
