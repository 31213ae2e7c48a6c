"""Let an app's sagaz hooks and listeners hear only the news of a run.

sagaz drives an interrupted saga through all steps again, and takes a suspended saga for failed.
Hooks and listeners have no part in a step's transaction: around a crash an event may be announced
twice, or not at all. An effect that must happen once belongs into a step.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from sagaz import Saga as SagaClass
from sagaz.core.decorators import SagaStepDefinition
from sagaz.core.listeners import LoggingSagaListener, MetricsSagaListener, SagaListener
from sagaz.observability.monitoring.metrics import SagaMetrics

from saga_runtime.logs import get_logger
from saga_runtime.text import one_line
from sagas.errors import Decided, Suspended
from sagas.failures import StepFailed, failure_of, raisable
from sagas.models import StepKind, StepStatus
from sagas.run.own_task import call_apart
from sagas.run.state import RunState

logger = get_logger(__name__)

_HOOKS = {
    "on_enter": "on_step_enter",
    "on_success": "on_step_success",
    "on_failure": "on_step_failure",
    "on_compensate": "on_compensation_start",
}
"""A step's hooks, and the listeners' methods for the same moments."""

_OVER = (StepStatus.DONE, StepStatus.SKIPPED)
_ANNOUNCED = {
    "on_step_enter": (StepKind.FORWARD, tuple(StepStatus)),
    "on_step_success": (StepKind.FORWARD, _OVER),
    "on_compensation_start": (StepKind.COMPENSATION, tuple(StepStatus)),
    "on_compensation_complete": (StepKind.COMPENSATION, _OVER),
}
"""Kind and statuses of the journal's row where an earlier run has announced the event."""


class ReplayFilter:
    """Keep the announcements of earlier runs from the hooks and listeners of a run."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._claimed = state.claimed

    def silence_replays(self, saga: SagaClass) -> None:
        """Let the hooks of a saga's steps, and the listeners, hear only news."""
        for step in saga.get_steps():
            self._silence_step(step)
        if saga._instance_listeners:  # noqa: SLF001 - no public way
            saga._instance_listeners = [  # noqa: SLF001
                _Listener(each, self)
                for each in saga._instance_listeners  # noqa: SLF001
            ]

    def _is_new(self, event: str, arguments: tuple[Any, ...]) -> bool:
        # By `type`: an error may lie about its class. Neither error is a failure of the step: the
        # one leaves it to a later run, the other follows a decision that was made elsewhere.
        last = type(arguments[-1])
        if self._state.suspended or issubclass(last, Suspended | Decided):
            return False
        if event == "on_saga_start":
            return not self._claimed.steps
        if event not in _ANNOUNCED:
            return True
        kind, statuses = _ANNOUNCED[event]
        record = self._claimed.steps.get((arguments[1], kind))
        return record is None or record.status not in statuses

    def _silence_step(self, step: SagaStepDefinition) -> None:
        for name, event in _HOOKS.items():
            hook = getattr(step, name, None)
            if hook is not None:
                setattr(step, name, self.only_news(event, hook))

    def only_news(
        self, event: str, heard: Callable[..., Any], *, apart: bool = True
    ) -> Callable[..., Any]:
        """Wrap a hook, or a listener's method, to be called for news only.

        Of a step, sagaz calls hooks with `(context, step, …)` and listeners with
        `(saga, step, …)`, an error last in both.

        Args:
            event: the listeners' method for the moment.
            heard: foreign code.
            apart: call it in a task of its own, as foreign code has to be.
        """

        async def call(*arguments: Any) -> None:
            if self._is_new(event, arguments):
                await self._call(event, heard, arguments, apart=apart)

        return call

    async def _call(
        self, event: str, heard: Callable[..., Any], arguments: tuple[Any, ...], *, apart: bool
    ) -> None:
        """Call a hook; a failure of the hook has no consequence.

        sagaz would take the step for failed, or for done.
        """
        *others, last = arguments
        if isinstance(last, StepFailed):
            last = raisable(last.failure.error)
        try:
            if apart:
                await call_apart(heard, *others, last)
            else:
                await heard(*others, last)
        except asyncio.CancelledError:  # with the loop
            self._state.suspend("the worker is ending")
            raise
        except Exception as error:  # noqa: BLE001 - whatever it raised
            logger.warning(
                "%s %s: a function that hears of %s failed, which changes nothing: %s",
                *(self._claimed.name, self._claimed.key, event, one_line(failure_of(error).text)),
            )


async def _nothing(*_: Any) -> None:
    """Hear an event that a listener leaves to the base class, where nothing happens."""


def _is_sagazs_own(listener: Any) -> bool:
    """Tell whether a listener is as sagaz makes it: it awaits nothing, and calls nobody's code."""
    kind = type(listener)  # exactly: a class derived from one is an app's
    if kind is LoggingSagaListener:
        return listener._logger_instance is None  # noqa: SLF001 - no public way
    return kind is MetricsSagaListener and type(listener.metrics) is SagaMetrics


class _Listener:
    """Stand in for a sagaz listener, behind the filter."""

    def __init__(self, listener: Any, replay_filter: ReplayFilter) -> None:
        self._listener = listener
        self._filter = replay_filter
        self._apart = not _is_sagazs_own(listener)

    def __getattr__(self, event: str) -> Any:
        heard = getattr(self._listener, event, None)
        if heard is None or getattr(heard, "__func__", None) is getattr(SagaListener, event, None):
            return _nothing
        return self._filter.only_news(event, heard, apart=self._apart)
