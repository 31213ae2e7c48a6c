"""Name the running step, and keep the calls that a worker has abandoned."""

import asyncio
from contextvars import ContextVar

current_step: ContextVar[str] = ContextVar("step", default="a call")
"""The running step, for people: `order ORD-1: charge_payment`."""


class AbandonedCalls:
    """Keep tasks that ignore cancels, until the tasks end."""

    def __init__(self) -> None:
        self._steps: dict[asyncio.Task[None], str] = {}

    @property
    def steps(self) -> list[str]:
        """Return the steps of the abandoned calls, the oldest first."""
        return [*self._steps.values()]

    def add(self, task: "asyncio.Task[None]") -> None:
        """Leave a call of the current step behind."""
        self._steps[task] = current_step.get()
        task.add_done_callback(self._steps.pop)


current_abandoned_calls: ContextVar[AbandonedCalls] = ContextVar("abandoned_calls")
