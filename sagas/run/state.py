"""Share the state of a run among the steps of the saga."""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from saga_runtime.text import LONGEST_ERROR, cut
from sagas.definition.hooks import Ending, SagaOutcome
from sagas.errors import Suspended
from sagas.journal.records import Claimed

Context = dict[str, Any]

TICK = timedelta(microseconds=1)  # what both databases keep of a moment


class RunState:
    """Hold the decisions of a run, the cancels, the waits, and the reason to stop.

    Suspended (lease lost, a compensation failed for good, the worker stopping), a run goes
    inert: every later step raises at once and writes nothing.

    Args:
        claimed: the saga, as claimed.
        clock: seconds, as `time.monotonic()`, for the deadline.
        now: the moment, as `timezone.now()`, for the ends of steps.

    Attributes:
        claimed: the saga, as claimed.
        context: after the steps so far.
        failure: why the saga is undone, for people; empty where nothing is decided.
        cancelled: whether the decision was a cancel.
        cancel_reason: of a cancel in the journal; empty without a cancel.
        pivots_begun: names of the pivots that have begun, as far as the run knows; the column
            `past_pivot` is the journal's knowledge.
        parked: why the saga needs a person; empty otherwise.
        suspended: why the run goes no further; empty otherwise.
        hangs: whether a call in a thread does not return, and may still commit.
        hurry: set where the worker is to stop; ends every wait.
        done_ahead: by name, the steps that have committed with an earlier one, and of which sagaz
            has not heard yet: result and end of each.
        started_ahead: by name, the external step whose start has committed with the local step
            before: when its first attempt began. Its call has not been made.
        has_ended: whether the saga's end has committed with the last step.
        commits_together: whether local steps may share a transaction, in this run.
        busy: how many steps are at work, and not resting.
        resting: when each resting step is due, by label; seconds of a monotonic clock.
    """

    def __init__(
        self,
        claimed: Claimed,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = timezone.now,
    ) -> None:
        self.claimed = claimed
        self.context: Context = claimed.context
        self.failure = claimed.failure
        self.cancelled = claimed.cancelled
        self.cancel_reason = claimed.cancel_reason
        self.pivots_begun: set[str] = set()
        self.parked = ""
        self.suspended = ""
        self.hangs = False
        self.hurry = asyncio.Event()
        self.done_ahead: dict[str, tuple[Context | None, datetime | None]] = {}
        self.started_ahead: dict[str, datetime] = {}
        self.has_ended = False
        self.commits_together = True
        self.busy = 0
        self.resting: dict[str, float] = {}
        self._clock = clock
        self._now = now
        ends = [step.finished_at for step in claimed.steps.values() if step.finished_at]
        self._last_end = max(ends, default=None)
        self._last_end_lock = threading.Lock()
        self._written_at: dict[str, datetime] = {}
        self._deadline = claimed.deadline_at

    def finished_at(self) -> datetime:
        """Return now as the end of an attempt.

        The moment is later than all ends of the saga so far, whatever this machine's clock says, so
        the ends tell the order of the steps. To be called in any thread.
        """
        # Local steps end in threads, side by side; two ends at one moment would have no order.
        with self._last_end_lock:
            now = self._now()
            now = timezone.make_aware(now) if timezone.is_naive(now) else now
            if self._last_end is not None:
                now = max(now, self._last_end + TICK)
            self._last_end = now
            return now

    def newest(self, result: Context | None, finished_at: datetime | None) -> Context:
        """Return the part of a step's result that is newer than the context.

        Of two steps with the same key the last to finish counts, whichever result comes first:
        sagaz takes results in the order of arrival, and on a replay in the order of a set. Between
        this call and the update of the context nothing may be awaited.

        Args:
            result: the step's changes of the context.
            finished_at: when the step ended, as in the journal.
        """
        newer = {
            key: value
            for key, value in (result or {}).items()
            if key not in self._written_at
            or (finished_at is not None and finished_at >= self._written_at[key])
        }
        if finished_at is not None:
            self._written_at |= dict.fromkeys(newer, finished_at)
        return newer

    @property
    def is_alone(self) -> bool:
        """Tell whether the calling step has no parallel step."""
        return self.busy <= 1 and not self.resting

    @property
    def has_begun_pivot(self) -> bool:
        """Tell whether the saga is past undoing, as far as the run knows."""
        return bool(self.pivots_begun)

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds until the deadline, negative afterwards; None without a deadline."""
        return None if self._deadline is None else self._deadline - self._clock()

    @property
    def is_cancel_due(self) -> bool:
        """Tell whether a cancel waits, and can still be applied."""
        return bool(self.cancel_reason) and not self.failure and not self.has_begun_pivot

    def outcome(self, ending: Ending, context: Context) -> SagaOutcome:
        """Describe the saga's end for the app's hooks.

        Args:
            ending: of the saga.
            context: the final context, without the keys of sagaz.
        """
        return SagaOutcome(
            saga_id=self.claimed.id,
            name=self.claimed.name,
            key=self.claimed.key,
            ending=ending,
            context=context,
            reason=self.parked or ("" if ending is Ending.COMPLETED else self.failure),
            cancelled=self.cancelled and ending is Ending.ROLLED_BACK,
        )

    def note_cancel(self, reason: str) -> None:
        """Note a cancel in the journal.

        The row has either a cancel or a begun pivot: with a cancel there, no pivot of the run has
        got through.

        Args:
            reason: of the cancel; empty without a cancel.
        """
        if reason:
            self.cancel_reason = reason
            # The row has either a cancel or a begun pivot; a decided saga keeps what decided it.
            if not self.failure:
                self.pivots_begun.clear()

    def suspend(self, reason: str) -> None:
        """Stop after the running steps; some worker goes on from there."""
        self.suspended = self.suspended or reason
        self.hurry.set()

    def suspended_by(self, reason: str) -> Suspended:
        """Suspend the run; return the error to raise."""
        self.suspend(reason)
        return Suspended(reason)

    def park(self, reason: str) -> None:
        """Stop after the running steps, and leave the saga to a person."""
        self.parked = self.parked or cut(reason, LONGEST_ERROR)
        self.suspend(reason)

    def stop_if_suspended(self) -> None:
        """Stop the caller where the run is suspended.

        Raises:
            Suspended: the run is suspended.
        """
        if self.suspended:
            raise Suspended(self.suspended)
