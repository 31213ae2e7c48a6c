"""What the steps of one saga in this worker know of each other."""

import asyncio
import threading
import time
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from saga_runtime.text import LONGEST_ERROR, cut
from sagas.errors import Suspended
from sagas.journal.records import Claimed

Context = dict[str, Any]

TICK = timedelta(microseconds=1)  # what both databases keep of a moment


class RunState:
    """One run of a saga: what has decided it, what it waits for, why it stops.

    Suspended (its lease lost, a compensation failed for good, the worker stopping), a run goes
    inert: every later step of it raises at once and writes nothing.
    """

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = claimed
        self.context: dict[str, Any] = claimed.context
        self.failure = claimed.failure
        self.cancelled = claimed.cancelled
        self.cancel_reason = claimed.cancel_reason
        self.pivots_begun: set[str] = set()
        self.parked = ""
        self.suspended = ""
        self.hangs = False
        """A call of this run in a thread does not come back, and may still commit."""
        self.hurry = asyncio.Event()
        self.busy = 0
        self.resting: dict[str, float] = {}
        ends = [step.finished_at for step in claimed.steps.values() if step.finished_at]
        self._last_end = max(ends, default=None)
        self._clock = threading.Lock()
        self._written_at: dict[str, datetime] = {}
        self._deadline = (
            None if claimed.seconds_left is None else time.monotonic() + claimed.seconds_left
        )

    def finished_at(self) -> datetime:
        """Return now as the end of an attempt: later than every other end of the saga, whatever
        this machine's clock says, so that the ends tell the order. For any thread."""
        with self._clock:
            now = timezone.now()
            now = timezone.make_aware(now) if timezone.is_naive(now) else now
            if self._last_end is not None:
                now = max(now, self._last_end + TICK)
            self._last_end = now
            return now

    def newest(self, result: Context | None, finished_at: datetime | None) -> Context:
        """Return of a step's result what belongs into the context now: of two steps that write one
        key the last to finish counts, whichever comes here first. sagaz takes results in the order
        in which they come, and on a replay they come in the order of a set.

        To be called last: between this and the context nothing may be awaited.
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
        return bool(self.pivots_begun)

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline; negative behind it, None where the saga has none."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    @property
    def is_cancel_due(self) -> bool:
        """A cancel waits, and can still be applied."""
        return bool(self.cancel_reason) and not self.failure and not self.has_begun_pivot

    def note_cancel(self, reason: str) -> None:
        """What the journal said of a cancel. The row has either a cancel or a begun pivot: with the
        one, no pivot of this run has got through."""
        if reason:
            self.cancel_reason = reason
            if not self.failure:
                self.pivots_begun.clear()

    def suspend(self, reason: str) -> None:
        """Stop after the steps that run; a worker goes on from there, this one or another."""
        self.suspended = self.suspended or reason
        self.hurry.set()

    def park(self, reason: str) -> None:
        self.parked = self.parked or cut(reason, LONGEST_ERROR)
        self.suspend(reason)

    def stop_if_suspended(self) -> None:
        """Raises:
        Suspended: this run goes no further.
        """
        if self.suspended:
            raise Suspended(self.suspended)
