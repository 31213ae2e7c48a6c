"""What the steps of one saga in this worker know of each other."""

import asyncio
import time
from typing import Any

from sagas.claims import Claimed


class Suspended(Exception):  # noqa: N818 - states the fact
    """This run goes no further; its text says why."""


class Decided(Exception):  # noqa: N818 - states the fact
    """The saga is decided, though no step of it failed just now; its text says why."""


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
        self.hurry = asyncio.Event()
        self.busy = 0
        self.resting: dict[str, float] = {}
        self._deadline = (
            None if claimed.seconds_left is None else time.monotonic() + claimed.seconds_left
        )

    @property
    def is_alone(self) -> bool:
        """Whether the step that asks has none beside it."""
        return self.busy <= 1 and not self.resting

    @property
    def past_pivot(self) -> bool:
        return bool(self.pivots_begun)

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline; negative behind it, None where the saga has none."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    @property
    def is_cancel_due(self) -> bool:
        """A cancel waits, and can still be applied."""
        return bool(self.cancel_reason) and not self.failure and not self.past_pivot

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
        self.parked = self.parked or reason
        self.suspend(reason)

    def stop_if_suspended(self) -> None:
        """Raises:
        Suspended: this run goes no further.
        """
        if self.suspended:
            raise Suspended(self.suspended)
