"""An instance of a saga class for each run."""

from typing import Any

import pytest
from sagaz import Saga as SagaClass
from sagaz import action, compensate
from sagaz.core.decorators import forward_recovery

from sagas.definition.instances import InstanceFactory
from tests.unit.sagas.saga_running import Context


class Trip(SagaClass):
    saga_name = "trip"

    @action("fly", max_retries=1)
    def fly(self, _: Context) -> "Trip":
        return self

    @compensate("fly")
    def unfly(self, ctx: Context) -> None: ...

    @action("eat", depends_on=["fly"], pivot=True)
    async def eat(self, ctx: Context) -> None: ...


class Counted(SagaClass):
    """A class that wants to be made."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1

    @action("fly")
    def fly(self, ctx: Context) -> None: ...


class Recovering(SagaClass):
    @action("fly", pivot=True)
    def fly(self, ctx: Context) -> None: ...

    @forward_recovery("fly")
    async def again(self, ctx: Context, error: Exception) -> Any: ...


def steps_of(saga: SagaClass) -> list[dict[str, Any]]:
    """Its steps, with functions by their names."""
    steps = [dict(vars(step)) for step in saga.get_steps()]
    for step in steps:
        for name in ("forward_fn", "compensation_fn"):
            step[name] = getattr(step[name], "__qualname__", None)
    return steps


def test_is_as_the_class_makes_it() -> None:
    made = InstanceFactory(Trip).new()
    assert type(made) is Trip
    assert steps_of(made) == steps_of(Trip())
    assert vars(made).keys() == vars(Trip()).keys()


def test_shares_nothing_with_another() -> None:
    pattern = InstanceFactory(Trip)
    first, second = pattern.new(), pattern.new()
    for step in first.get_steps():
        step.forward_fn, step.timeout_seconds = dict, None
    assert steps_of(second) == steps_of(Trip())
    assert {step.step_id: step for step in second.get_steps()}["fly"].forward_fn({}) is second
    for name, value in vars(first).items():
        if isinstance(value, list | dict | set) and name not in _FOR_ALL:
            assert value is not vars(second)[name], name


_FOR_ALL = {"_forward_recovery_handlers", "_instance_listeners"}


@pytest.mark.parametrize("saga_class", [Counted, Recovering])
def test_of_another_kind_is_made_by_its_class(saga_class: type[SagaClass]) -> None:
    pattern = InstanceFactory(saga_class)
    before = Counted.made
    made = pattern.new()
    assert Counted.made == before + (saga_class is Counted)
    if saga_class is Recovering:
        [handler] = vars(made)["_forward_recovery_handlers"].values()
        assert handler.__self__ is made
