"""What a step sees of its context, what it hands on, and that a crash changes neither."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagas.crash_points import Point, observe
from sagas.errors import UnstorableValue
from sagas.journal import codec
from sagas.run.calling import call_external, call_local, visible
from sagas.run.saga_run import SagaRun
from sagas.worker.executor import Executor
from tests import strategies
from tests.unit.sagas.saga_running import Context, Register, begin, run_to_end, working
from tests.unit.sagas.scripted_sagas import Part, Script, chain
from tests.unit.waiting import until

Change = Callable[[Context], Any]
NAMES = ["first", "second", "third"]
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def sync(change: Change, context: Context) -> Context:
    return call_local(change, context)


def of_async(change: Change, context: Context) -> Context:
    async def step(own: Context) -> Any:
        return change(own)

    return asyncio.run(call_external(step, context))


@pytest.fixture(params=[sync, of_async], ids=["local", "external"])
def apply(request: pytest.FixtureRequest) -> Callable[[Change, Context], Context]:
    """What the journal gets of a step, of either kind."""
    kind: Callable[[Change, Context], Context] = request.param
    return kind


class SameRepr:
    """As `repr`, so that True is not taken for 1, nor Decimal("1.0") for Decimal("1.00")."""

    def __init__(self, value: Any) -> None:
        self.text = repr(value)

    def __eq__(self, other: object) -> bool:
        return self.text == repr(other)

    def __repr__(self) -> str:
        return self.text

    __hash__ = None  # type: ignore[assignment]


ALIKE = [
    (1, True),
    (True, 1),
    (0, False),
    (1, 1.0),
    (1.0, 1),
    (1, "1"),
    ("1", 1),
    ('"5"', "5"),
    ("5", '"5"'),
    (None, "null"),
    ("null", None),
    (None, False),
    (None, {}),
    ([], ()),
    ((), []),
    ([1], (1,)),
    (0.0, -0.0),
    (Decimal("1.0"), Decimal("1.00")),
    (Decimal(1), 1),
    (Decimal("1"), "1"),
    (Decimal("1"), {"$decimal": "1"}),
    ({"$decimal": "1"}, Decimal("1")),
    (b"1", "1"),
    (UUID(int=1), str(UUID(int=1))),
    (MOMENT, MOMENT.isoformat()),
    (MOMENT.date(), MOMENT),
    ([1, 2], [2, 1]),
    ([True], [1]),
    ({"a": 1}, {"a": True}),
    ({"a": None}, {}),
    ("é", "e\u0301"),
]


@pytest.mark.parametrize(("before", "after"), ALIKE, ids=repr)
def test_what_looks_alike_is_a_change(
    before: Any, after: Any, apply: Callable[[Change, Context], Context]
) -> None:
    context = {"it": before, "beside": before}

    def step(own: Context) -> None:
        own["it"] = after

    changed = apply(step, context)
    assert {"it": SameRepr(after)} == changed
    # What the journal hands on is that very value too.
    assert {"it": SameRepr(after)} == codec.decode(codec.encode(changed))
    assert SameRepr(context) == {"it": before, "beside": before}


IN_PLACE: dict[str, tuple[Any, Callable[[Any], Any], Any]] = {
    "a list": ([1], lambda v: v.append(2), [1, 2]),
    "a list in a list": ([[1]], lambda v: v[0].append(2), [[1, 2]]),
    "a dict": ({"a": 1}, lambda v: v.update(a=2), {"a": 2}),
    "a key less": ({"a": 1, "b": 2}, lambda v: v.pop("a"), {"b": 2}),
    "a list in a tuple": (([],), lambda v: v[0].append(Decimal(1)), ([Decimal(1)],)),
    "a type only": ({"a": 1}, lambda v: v.update(a=True), {"a": True}),
    "emptied": ([1], lambda v: v.clear(), []),
}


@pytest.mark.parametrize(("before", "change", "after"), IN_PLACE.values(), ids=IN_PLACE)
def test_what_is_changed_in_place(
    before: Any,
    change: Callable[[Any], Any],
    after: Any,
    apply: Callable[[Change, Context], Context],
) -> None:
    context = {"it": before, "beside": [1]}
    was = repr(context)
    assert {"it": SameRepr(after)} == apply(lambda own: change(own["it"]) and None, context)
    assert repr(context) == was, "the step has written into another's context"


def test_what_is_not_changed_is_not_written(
    apply: Callable[[Change, Context], Context],
) -> None:
    context = {"a": 1, "b": [1, {"c": ()}], "d": Decimal("1.10"), "e": None, "f": "x", "g": 1.5}
    assert apply(lambda own: own["b"].append(1) or (own["b"].pop() and None), context) == {}
    assert apply(lambda own: own.update(d=Decimal("1.10")), context) == {}


def test_what_is_returned_goes_before_what_is_changed(
    apply: Callable[[Change, Context], Context],
) -> None:
    def step(own: Context) -> Context:
        own["it"], own["other"] = 1, 2
        return {"it": 3}

    assert apply(step, {"it": 0}) == {"it": 3, "other": 2}


def test_a_context_that_is_returned_whole(apply: Callable[[Change, Context], Context]) -> None:
    def step(own: Context) -> Context:
        own["list"].append(2)
        return own

    assert apply(step, {"list": [1], "n": 1}) == {"list": [1, 2], "n": 1}


@pytest.mark.parametrize("value", [object(), {1}, float("nan"), {1: 2}, type("S", (str,), {})("s")])
@pytest.mark.parametrize("key", ["new", "atom", "list"])
def test_what_cannot_be_kept_is_refused_not_dropped(
    key: str, value: Any, apply: Callable[[Change, Context], Context]
) -> None:
    def step(own: Context) -> None:
        own[key] = value

    with pytest.raises(UnstorableValue):
        codec.encode(apply(step, {"atom": 1, "list": [1]}))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | strategies.text()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(strategies.text(), inner, max_size=3)
    ),
    max_leaves=5,
)
CONTEXTS = st.dictionaries(st.sampled_from("abc"), VALUES)


@given(before=CONTEXTS, written=CONTEXTS, returned=CONTEXTS)
def test_nothing_is_lost(before: Context, written: Context, returned: Context) -> None:
    def step(own: Context) -> Context:
        own.update(written)
        return returned

    handed_on = codec.decode(codec.encode(call_local(step, before)))
    wanted = before | written | returned
    seen = before | handed_on
    assert {k: repr(v) for k, v in seen.items()} == {k: repr(v) for k, v in wanted.items()}


def test_an_external_step_changes_nothing_that_it_did_not_touch() -> None:
    """A step beside it has ended meanwhile, and its results are in the shared context."""
    context: Context = {"seats": 1, "stops": ["A"], "rate": 1.5}

    async def step(own: Context) -> Context:
        context.update(seats=2, stops=["A", "B"], rate=2.5, hotel="H")
        own["mine"] = True
        return {}

    assert asyncio.run(call_external(step, context)) == {"mine": True}


def test_what_sagaz_keeps_for_itself_is_not_visible() -> None:
    own = {
        "__pay_completed": True, "__pay_compensated": True, "__pay_compensation_error": "no",
    }  # fmt: skip
    of_others = {"a": 1, "_b": 2, "__typename": "Order", "__a_completed": 3, "__pay": 4}
    assert visible(of_others | own, ["pay"]) == of_others


class TestAResultThatIsNoDict:
    @pytest.mark.parametrize("result", ["ch_1", 7, ["a"], [], "", False, len])
    def test_fails_the_step(self, result: Any) -> None:
        async def external(_: Context) -> Any:
            return result

        with pytest.raises(UnstorableValue, match=r"which no later step would see: return a"):
            call_local(lambda _: result, {})
        with pytest.raises(UnstorableValue, match=r"which no later step would see: return a"):
            changing(external)

    @pytest.mark.parametrize("result", ["ch_1", 7, [], None])
    def test_of_a_compensation_is_passed_over(self, result: Any) -> None:
        async def external(ctx: Context) -> Any:
            return local(ctx)

        def local(ctx: Context) -> Any:
            ctx["refunded"] = True
            return result

        assert call_local(local, {}, undoes=True) == {"refunded": True}
        assert changing(external, undoes=True) == {"refunded": True}

    @pytest.mark.parametrize("undoes", [False, True])
    def test_that_has_never_run_fails_it(self, undoes: bool) -> None:  # noqa: FBT001
        async def inner() -> Context:
            return {}

        async def forgets_to_await(_: Context) -> Any:
            return inner()

        def forgets_to_iterate(_: Context) -> Any:
            return (n for n in [1])

        with pytest.raises(UnstorableValue, match=r"returned a coroutine, which nobody has run"):
            changing(forgets_to_await, undoes=undoes)
        with pytest.raises(UnstorableValue, match=r"returned a generator, which nobody has run"):
            call_local(forgets_to_iterate, {}, undoes=undoes)


def changing(step: Callable[[Context], Any], *, undoes: bool = False) -> Context:
    return asyncio.run(call_external(step, {}, undoes=undoes))


@contextmanager
def stopping_after_a_step(worker: Executor) -> Iterator[None]:
    def stop(point: Point, _: str) -> None:
        if point is Point.STEP_DONE:
            for _claimed, run in worker._running.values():
                assert isinstance(run, SagaRun)
                run.suspend("it stops here")

    end = observe(stop)
    try:
        yield
    finally:
        end()


@pytest.mark.django_db(transaction=True)
class TestThroughSteps:
    @pytest.mark.usefixtures("one_by_one")
    @pytest.mark.parametrize("crash", [False, True], ids=["one worker", "a worker for each step"])
    def test_a_crash_changes_nothing(self, crash: bool, register: Register) -> None:  # noqa: FBT001
        seen: list[Context] = []
        script = Script()

        def first(ctx: Context) -> Context:
            ctx["stops"].append((1, Decimal("2.0")))
            ctx["n"] = True
            ctx["text"] = '"5"'
            return {"when": MOMENT, "nested": {"$decimal": "1"}}

        def second(ctx: Context) -> None:
            seen.append(deepcopy(visible(ctx, NAMES)))
            ctx["text"] = "5"
            ctx["stops"][0] = "Zoë"
            ctx["nested"]["$decimal"] = Decimal(1)

        script.acts = {
            "first": first,
            "second": second,
            "third": lambda ctx: seen.append(deepcopy(visible(ctx, NAMES))),
        }
        register(
            script.saga(
                "travel", *chain(Part("first"), Part("second", external=True), Part("third"))
            )
        )
        saga = begin("travel", n=1, stops=["A"], text="5")
        if crash:
            for n in range(1, 3):
                with working() as worker, stopping_after_a_step(worker):
                    until(lambda n=n: len(script.calls) == n and not worker._running)  # type: ignore[misc]
        ended = run_to_end(saga)
        assert ended.status == "completed"
        assert script.calls == ["first", "second", "third"]
        after_first = {
            "n": True,
            "stops": ["A", (1, Decimal("2.0"))],
            "text": '"5"',
            "when": MOMENT,
            "nested": {"$decimal": "1"},
            "saga_id": str(saga),
        }
        after_second = after_first | {
            "text": "5",
            "stops": ["Zoë", (1, Decimal("2.0"))],
            "nested": {"$decimal": Decimal(1)},
        }
        assert [dict(sorted(c.items())) for c in seen] == [
            SameRepr(dict(sorted(after_first.items()))),
            SameRepr(dict(sorted(after_second.items()))),
        ]
