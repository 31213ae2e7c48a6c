"""Which step runs here, and the calls of steps that a worker has left behind."""

import asyncio
from contextvars import ContextVar

current_step: ContextVar[str] = ContextVar("step", default="a call")
"""The step that runs here, as a person says it: `order ORD-1: charge_payment`."""


class AbandonedCalls:
    """Keeps the tasks that did not heed their cancel, until they end."""

    def __init__(self) -> None:
        self._steps: dict[asyncio.Task[None], str] = {}

    @property
    def steps(self) -> list[str]:
        """The steps that made these calls, the oldest first."""
        return [*self._steps.values()]

    def add(self, task: "asyncio.Task[None]") -> None:
        """Leave a call of the current step behind."""
        self._steps[task] = current_step.get()
        task.add_done_callback(self._steps.pop)


current_abandoned_calls: ContextVar[AbandonedCalls] = ContextVar("abandoned_calls")
