"""Find what the steps of a saga's run can share a transaction with."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from sagaz import Saga as SagaClass

from sagas.definition.chains import Followers, answers_that_wait, chains
from sagas.definition.steps import Step
from sagas.journal.records import Claimed
from sagas.models import StepKind


@dataclass(frozen=True, slots=True)
class Plan:
    """Describe what a local step can share its transaction with.

    Attributes:
        steps: those that follow the step, none of them begun.
        ends: whether the last of them, or the step itself, is the saga's last step.
        all_steps: the names of all forward steps of the saga.
        call: the external step behind them, whose start is written along; None without one.
    """

    steps: tuple[Step, ...]
    ends: bool
    all_steps: tuple[str, ...]
    call: Step | None = None

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing follows that could join the step."""
        return not (self.steps or self.ends or self.call)


class Plans:
    """Find the plan of each step.

    Args:
        saga: an instance of the run.
        steps: the forward steps, by name.
        claimed: the saga, as claimed.
    """

    def __init__(self, saga: SagaClass, steps: Mapping[str, Step], claimed: Claimed) -> None:
        self._saga = saga
        self._steps = steps
        self._claimed = claimed

    def of(self, step: Step) -> Plan | None:
        """Find what a local step that begins can share its transaction with.

        Returns:
            The plan; None where the step has to commit alone.
        """
        if step.kind is not StepKind.FORWARD or step.name not in self._chains:
            return None
        following = self._chains[step.name]
        if any(self._has_begun(each) for each in following.steps):
            return None
        *_, last_level = self._levels
        # A step without a limit is not watched, and the app's hook must be.
        ends = last_level == [(step, *following.steps)[-1]] and step.timeout is not None
        call = following.call
        if call is not None and self._has_begun(call):
            call = None
        return Plan(following.steps, ends, tuple(self._steps), call)

    def lets_answer_wait(self, step: Step) -> bool:
        """Tell whether an external step's answer can be written with the step that follows."""
        return step.kind is StepKind.FORWARD and step.name in self._answers_that_wait

    def _has_begun(self, step: Step) -> bool:
        return (step.name, step.kind) in self._claimed.steps

    @cached_property
    def _levels(self) -> list[list[Step]]:
        """Return the forward steps in the order of sagaz; those of a level run side by side."""
        order = self._saga.get_execution_order()
        return [[self._steps[each.step_id] for each in level] for level in order]

    @cached_property
    def _chains(self) -> dict[str, Followers]:
        return chains(self._levels)

    @cached_property
    def _answers_that_wait(self) -> set[str]:
        return answers_that_wait(self._levels)
