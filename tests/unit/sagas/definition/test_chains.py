"""Which local steps may commit together."""

from typing import Any

import pytest

from sagas import commit_alone
from sagas.definition.chains import LONGEST_CHAIN, answers_that_wait, chains
from sagas.definition.steps import Step, forward_step
from sagas.models import StepKind
from tests.unit.sagas.scripted_sagas import Part, Script, chain


def step(name: str, **attributes: Any) -> Step:
    kept: dict[str, Any] = {"is_external": False, "max_retries": 0, "timeout": None}
    return Step(name=name, kind=StepKind.FORWARD, function=print, **kept | attributes)


def found(*levels: list[Step]) -> dict[str, list[str]]:
    return {head: [each.name for each in behind.steps] for head, behind in chains(levels).items()}


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


def calls(*levels: list[Step]) -> dict[str, str | None]:
    return {
        head: behind.call.name if behind.call else None for head, behind in chains(levels).items()
    }


def test_the_external_step_behind_a_chain_can_start_with_it() -> None:
    external = step("x", is_external=True)
    assert calls([step("a")], [step("b")], [external], [step("c")]) == {
        "a": "x",
        "b": "x",
        "c": None,
    }
    assert calls([step("a")], [external, step("b")]) == {"a": None}


def test_a_pivot_is_not_started_ahead() -> None:
    assert calls([step("a")], [step("x", is_external=True, is_pivot=True)]) == {"a": None}


@pytest.mark.parametrize("other", ["commits_alone", "has_hooks"])
def test_one_that_shares_nothing_starts_alone(other: str) -> None:
    external = step("x", is_external=True, **{other: True})
    levels = [[step("a")], [external], [step("b")]]
    assert calls(*levels) == {"a": None, "b": None}
    assert answers_that_wait(levels) == set()


def test_behind_a_full_chain_nothing_starts() -> None:
    levels = [[step(str(n))] for n in range(LONGEST_CHAIN + 1)]
    levels.append([step("x", is_external=True)])
    assert calls(*levels)["0"] is None
    assert calls(*levels)["1"] == "x"


def test_an_answer_waits_for_a_local_step_alone() -> None:
    x, y, z = (step(name, is_external=True) for name in "xyz")
    assert answers_that_wait([[x], [step("a")], [y], [z]]) == {"x"}
    assert answers_that_wait([[x], [step("a"), step("b")], [y]]) == set()
    assert answers_that_wait([[x, y], [step("a")]]) == set()
    assert answers_that_wait([[x], [step("a", commits_alone=True)]]) == set()
