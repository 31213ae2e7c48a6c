"""What the steps of one saga in this worker know of each other."""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from saga_runtime.text import LONGEST_ERROR, cut
from sagas.errors import Suspended
from sagas.journal.records import Claimed

Context = dict[str, Any]

TICK = timedelta(microseconds=1)  # what both databases keep of a moment


class RunState:
    """Hold what has decided one run of a saga, what it waits for, and why it stops.

    Suspended (its lease lost, a compensation failed for good, the worker stopping), a run goes
    inert: every later step of it raises at once and writes nothing.

    Args:
        claimed: the saga, as it was claimed.
        clock: seconds, as `time.monotonic()`; it tells what is left until the deadline.
        now: the moment, as `timezone.now()`; it tells when a step has ended.

    Attributes:
        claimed: the saga, as it was claimed.
        context: what the steps so far have left in it.
        failure: what has decided that the saga is undone, for people; empty where nothing has.
        cancelled: a cancel has decided it.
        cancel_reason: of a cancel that the journal has told of; empty where there is none.
        pivots_begun: the pivots that this run takes for begun, by name. The saga's own
            `past_pivot` is what the journal has.
        parked: why the saga needs a person; empty where it needs none.
        suspended: why this run goes no further; empty where it does.
        hangs: a call of this run in a thread does not come back, and may still commit.
        hurry: set where the worker is to stop: it ends every wait.
        busy: how many steps are at work, and not resting.
        resting: when each step that rests is due, by its label; seconds of a monotonic clock.
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
        self.busy = 0
        self.resting: dict[str, float] = {}
        self._clock = clock
        self._now = now
        ends = [step.finished_at for step in claimed.steps.values() if step.finished_at]
        self._last_end = max(ends, default=None)
        self._last_end_lock = threading.Lock()
        self._written_at: dict[str, datetime] = {}
        self._deadline = None if claimed.seconds_left is None else clock() + claimed.seconds_left

    def finished_at(self) -> datetime:
        """Return now as the end of an attempt.

        It is later than every other end of the saga, whatever this machine's clock says, so that
        the ends tell the order of the steps. To be called in any thread.
        """
        with self._last_end_lock:
            now = self._now()
            now = timezone.make_aware(now) if timezone.is_naive(now) else now
            if self._last_end is not None:
                now = max(now, self._last_end + TICK)
            self._last_end = now
            return now

    def newest(self, result: Context | None, finished_at: datetime | None) -> Context:
        """Return of a step's result what belongs into the context now.

        Of two steps that write one key the last to finish counts, whichever comes here first: sagaz
        takes results in the order in which they come, and on a replay they come in the order of a
        set. To be called last: between this and the context nothing may be awaited.

        Args:
            result: what the step has changed in the context.
            finished_at: when it ended, as the journal has it.
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
        """Whether the step that asks has none beside it."""
        return self.busy <= 1 and not self.resting

    @property
    def has_begun_pivot(self) -> bool:
        """Whether the saga cannot be undone any more, as far as this run knows."""
        return bool(self.pivots_begun)

    @property
    def seconds_left(self) -> float | None:
        """The seconds until the deadline; negative behind it, None where the saga has none."""
        return None if self._deadline is None else self._deadline - self._clock()

    @property
    def is_cancel_due(self) -> bool:
        """Whether a cancel waits, and can still be applied."""
        return bool(self.cancel_reason) and not self.failure and not self.has_begun_pivot

    def note_cancel(self, reason: str) -> None:
        """Note what the journal said of a cancel.

        The row has either a cancel or a begun pivot: with a cancel there, no pivot of this run has
        got through.

        Args:
            reason: why it was asked for; empty where it was not.
        """
        if reason:
            self.cancel_reason = reason
            if not self.failure:
                self.pivots_begun.clear()

    def suspend(self, reason: str) -> None:
        """Stop after the steps that run; a worker goes on from there, this one or another."""
        self.suspended = self.suspended or reason
        self.hurry.set()

    def park(self, reason: str) -> None:
        """Stop after the steps that run, and leave the saga to a person."""
        self.parked = self.parked or cut(reason, LONGEST_ERROR)
        self.suspend(reason)

    def stop_if_suspended(self) -> None:
        """Stop the caller where this run goes no further.

        Raises:
            Suspended: it goes no further.
        """
        if self.suspended:
            raise Suspended(self.suspended)
