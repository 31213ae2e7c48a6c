"""Which local steps may commit together."""

from typing import Any

import pytest

from sagas import commit_alone
from sagas.definition.chains import LONGEST_CHAIN, chains
from sagas.definition.steps import Step, forward_step
from sagas.models import StepKind
from tests.unit.sagas.scripted_sagas import Part, Script, chain


def step(name: str, **attributes: Any) -> Step:
    kept: dict[str, Any] = {"is_external": False, "max_retries": 0, "timeout": None}
    return Step(name=name, kind=StepKind.FORWARD, function=print, **kept | attributes)


def found(*levels: list[Step]) -> dict[str, list[str]]:
    return {head: [each.name for each in behind] for head, behind in chains(levels).items()}


def test_local_steps_one_after_the_other() -> None:
    levels = [[step("a")], [step("b")], [step("c")]]
    assert found(*levels) == {"a": ["b", "c"], "b": ["c"], "c": []}


@pytest.mark.parametrize("other", [{"is_external": True}, {"commits_alone": True}])
def test_stop_before_one_that_commits_alone(other: dict[str, bool]) -> None:
    levels = [[step("a")], [step("b")], [step("x", **other)], [step("c")], [step("d")]]
    assert found(*levels) == {"a": ["b"], "b": [], "c": ["d"], "d": []}


def test_steps_beside_each_other_are_in_none() -> None:
    levels = [[step("a")], [step("b"), step("c")], [step("d")]]
    assert found(*levels) == {"a": [], "d": []}


def test_stop_where_only_one_has_a_timeout() -> None:
    """The server's limit holds for the rest of the transaction."""
    levels = [[step("a", timeout=1.0)], [step("b", timeout=2.0)], [step("c")]]
    assert found(*levels) == {"a": ["b"], "b": [], "c": []}


def test_are_bounded() -> None:
    levels = [[step(str(number))] for number in range(20)]
    assert found(*levels)["0"] == [str(number) for number in range(1, LONGEST_CHAIN)]


def test_stop_before_a_step_with_a_hook() -> None:
    assert found([step("a")], [step("b", has_hooks=True)], [step("c")]) == {"a": [], "c": []}


def test_what_a_saga_declares() -> None:
    script = Script()
    saga = script.saga("shop", *chain(Part("a"), Part("b", external=True), Part("c")))()
    levels = [[forward_step(each) for each in level] for level in saga.get_execution_order()]
    assert found(*levels) == {"a": [], "c": []}


def test_a_method_is_marked() -> None:
    class Shop:
        @commit_alone
        def pack(self, _: dict[str, Any]) -> None: ...

        def ship(self, _: dict[str, Any]) -> None: ...

    assert getattr(Shop().pack, "_commits_alone", False)
    assert not getattr(Shop().ship, "_commits_alone", False)
