"""Do what a local step shares its transaction with, in the step's thread.

In front is the answer of the call before. Behind are the local steps that follow, and then the
saga's end, or the start of the next call.

sagaz hears of the steps afterwards, as on a resume. Whatever fails in a chain, all of the chain is
rolled back, and this run does its steps one by one: the journal is as if there were no chains.
"""

from collections.abc import Sequence
from typing import Any

from saga_runtime.abandoned_calls import current_step
from saga_runtime.hang_watch import current_watch
from sagas.crash_points import Point, reach
from sagas.definition.current_step import current_key
from sagas.definition.hooks import Ending
from sagas.definition.identity import step_key
from sagas.definition.registry import has_hook
from sagas.definition.steps import Step
from sagas.errors import ChainBroken
from sagas.journal import codec, final_transaction, limits
from sagas.journal.entries import StepEntry
from sagas.models import StepStatus
from sagas.run.calling import call_local, visible
from sagas.run.plans import Plan
from sagas.run.state import RunState
from sagas.run.timing import Timing
from sagas.run.tries import Tries

Context = dict[str, Any]


class Chain:
    """Do what follows a local step, in the step's thread and transaction.

    Args:
        plan: what follows.
        first: the step at the head.
        context: of the saga, before the first step; not changed.
        state: of the run.
        timing: of the worker.
        answer: of the call before, not yet in the journal; None without one.

    Attributes:
        before: the answer, to be written before the first step.
        done: the entries of the steps that followed, with their results.
        pivots: the names of those behind which the saga cannot be undone any more.
    """

    def __init__(
        self,
        plan: Plan,
        first: Step,
        context: Context,
        state: RunState,
        timing: Timing,
        *,
        answer: StepEntry | None = None,
    ) -> None:
        self.before = () if answer is None else (answer,)
        self.done: list[StepEntry] = []
        self.pivots = [step.name for step in plan.steps if step.is_pivot]
        self._start: StepEntry | None = None
        self._plan = plan
        self._first = first
        self._context = dict(context)
        self._state = state
        self._timing = timing

    def go_on(self, result: Any) -> Sequence[StepEntry]:
        """Do the steps that follow, and start the call behind them.

        Args:
            result: of the first step, as decoded from the journal.

        Returns:
            The entries of the steps, with the results, and of the call's start.

        Raises:
            ChainBroken: the worker is to stop, or the deadline has passed.
            Exception: from a step.
        """
        self._add(self._first, result)
        limit = self._first.timeout
        for step in self._plan.steps:
            reach(Point.INSIDE_CHAIN, step.label)
            self._stop_where_a_run_would()
            self._begin_part(step.log_name, step.timeout)
            if step.timeout is not None and step.timeout != limit:
                limits.limit_statements(limit := step.timeout)
            self.done.append(entry := self._do(step))
            self._add(step, codec.decode(entry.result))
        if self._plan.call is None:
            return self.done
        self._stop_where_a_run_would()
        tries = Tries()
        tries.begin()
        self._start = tries.entry(self._plan.call, StepStatus.STARTED)
        return [*self.done, self._start]

    @property
    def ends(self) -> tuple[str, ...]:
        """Return the names of all forward steps, where the saga ends here; otherwise none."""
        return self._plan.all_steps if self._plan.ends else ()

    def call_hook(self) -> None:
        """Call the app's hook for the end, if there is one; the saga's row has ended.

        Raises:
            HookFailed: the hook has raised.
        """
        saga = self._state.claimed
        if has_hook(saga.name, Ending.COMPLETED):
            self._begin_part("the function at its end", self._timing.hook_limit)
            # A copy, as from the journal: what the hook changes must not reach a repeated step.
            context = visible(self._context, self._plan.all_steps)
            context = codec.decode(codec.encode(context))
            key = current_key.set("")  # the first step's is none of the hook's
            try:
                final_transaction.call_hook(self._state.outcome(Ending.COMPLETED, context))
            finally:
                current_key.reset(key)
        reach(Point.BEFORE_TERMINAL_COMMIT)

    def note_commit(self) -> None:
        """Note in the run's state that the steps, and perhaps the saga's end, have committed."""
        self._state.pivots_begun.update(self.pivots)
        self._state.done_ahead |= {
            entry.step: (codec.decode(entry.result), entry.finished_at) for entry in self.done
        }
        if self._start is not None:
            self._state.started_ahead[self._start.step] = self._start.started_at
        self._state.has_ended = self._plan.ends

    def _stop_where_a_run_would(self) -> None:
        left = self._state.seconds_left
        if self._state.suspended or (left is not None and left <= 0):
            raise ChainBroken

    def _begin_part(self, name: str, limit: float | None) -> None:
        watch = current_watch.get()
        if watch is not None and limit is not None:
            watch.begin_part(self._in_words(name), limit + self._timing.hang_margin)

    def _in_words(self, name: str) -> str:
        return f"{self._state.claimed.name} {self._state.claimed.key}: {name}"

    def _do(self, step: Step) -> StepEntry:
        saga = self._state.claimed
        tries = Tries()
        tries.begin()
        key = current_key.set(step_key(saga.id, step.name, step.kind))
        named = current_step.set(self._in_words(step.log_name))
        try:
            result = codec.encode(call_local(step.function, self._context))
        finally:
            current_key.reset(key)
            current_step.reset(named)
        reach(Point.INSIDE_LOCAL_STEP, step.label)
        at = self._state.finished_at()
        return tries.entry(step, StepStatus.DONE, result=result, finished_at=at)

    def _add(self, step: Step, result: Context | None) -> None:
        """Change the context as sagaz does after a step."""
        self._context.update(result or {})
        self._context[f"__{step.name}_completed"] = True
