"""Rest between two attempts at a step, in the worker or without a worker."""

import time
from collections.abc import Callable

from sagas.definition.steps import Step
from sagas.journal.entries import Wait
from sagas.models import StepKind
from sagas.run.journal_writer import JournalWriter
from sagas.run.patience import Patience
from sagas.run.state import RunState


class Resting:
    """Let the steps of a run rest between attempts.

    Args:
        state: of the run.
        writer: writes when a given-up saga is due.
        patience: sleeps, and stops with the worker.
        longest: seconds; where every step rests longer, the saga is given up meanwhile.
        clock: seconds, as `time.monotonic()`.
    """

    def __init__(
        self,
        state: RunState,
        writer: JournalWriter,
        patience: Patience,
        *,
        longest: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._writer = writer
        self._patience = patience
        self._longest = longest
        self._clock = clock

    async def rest(self, step: Step, seconds: float) -> None:
        """Rest so long, but no longer than to the deadline.

        A saga is given up where every step rests for long: without a task and a worker, until the
        saga is due and claimed again.

        Raises:
            Suspended: the saga is given up, or the worker is to stop.
        """
        left = self._state.seconds_left
        if left is not None and step.kind is StepKind.FORWARD and not self._state.has_begun_pivot:
            seconds = max(0.0, min(seconds, left))
        due = self._clock() + seconds
        self._state.resting[step.label] = due
        self._state.busy -= 1
        try:
            # In short naps: meanwhile the last step beside this one may begin to rest too.
            while (left := due - self._clock()) > 0:
                if not self._state.busy and self._seconds_to_first() > self._longest:
                    await self._give_up_saga()
                await self._patience.sleep(min(left, self._longest))
        finally:
            self._state.busy += 1
            del self._state.resting[step.label]

    def _seconds_to_first(self) -> float:
        """Return the seconds until the first of the resting steps is due."""
        return min(self._state.resting.values()) - self._clock()

    async def _give_up_saga(self) -> None:
        """Write when the saga is due, and stop the run.

        Raises:
            Suspended: always.
        """
        seconds = self._seconds_to_first()
        # Written first: without the moment in the row, nobody would claim the saga when it is due.
        await self._writer.append(Wait(seconds))
        self._state.suspend(f"its next attempt is due in {seconds:.0f} s")
        self._state.stop_if_suspended()
