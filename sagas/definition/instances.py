"""Make an instance of a saga class for each run, without collecting the steps each time."""

from types import MethodType
from typing import Any

from sagaz import Saga as SagaClass
from sagaz.core.decorators import SagaStepDefinition
from sagaz.core.execution.graph import SagaExecutionGraph

# What sagaz keeps in an instance. Where a class keeps anything else, it makes each instance itself:
# a copy might share with another run what should be one run's own.
_OF_A_RUN = {
    "_steps": list, "_step_registry": dict, "_compensation_graph": SagaExecutionGraph,
    "_context": dict, "_completed_pivots": set, "_tainted_steps": set,
}  # fmt: skip
_OF_THE_CLASS = {
    "_saga_id", "_mode", "_forward_recovery_handlers", "_pivot_reached", "_config",
    "_instance_listeners",
}  # fmt: skip


class InstanceFactory:
    """Make instances of a saga class, as copies of a first where the class allows copies."""

    def __init__(self, saga_class: type[SagaClass]) -> None:
        self._class = saga_class
        self._model = saga_class()
        kept = vars(self._model)
        self._is_plain = (
            saga_class.__init__ is SagaClass.__init__
            and saga_class.__new__ is object.__new__
            and kept.keys() == _OF_A_RUN.keys() | _OF_THE_CLASS
            and not kept["_forward_recovery_handlers"]
        )

    def new(self) -> SagaClass:
        """Return a new instance, which shares nothing with the instances of earlier runs."""
        if not self._is_plain:
            return self._class()
        saga = object.__new__(self._class)
        own = vars(saga)
        own.update(vars(self._model))
        for name, kind in _OF_A_RUN.items():
            own[name] = kind()
        own["_steps"] = [_copied(definition, saga) for definition in self._model.get_steps()]
        own["_step_registry"] = {step.step_id: step for step in own["_steps"]}
        return saga


def _copied(definition: SagaStepDefinition, saga: SagaClass) -> SagaStepDefinition:
    copy = object.__new__(SagaStepDefinition)
    vars(copy).update(vars(definition))
    copy.forward_fn = _bound(definition.forward_fn, saga)
    copy.compensation_fn = _bound(definition.compensation_fn, saga)
    return copy


def _bound(function: Any, saga: SagaClass) -> Any:
    """Bind a method of the model to an instance; return any further function unchanged."""
    return MethodType(function.__func__, saga) if isinstance(function, MethodType) else function
