"""Local steps that follow each other, and the saga's end, commit together; whatever fails, the
journal and the effects are those of steps that commit one by one."""

import copy
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from sagas import NeedsAttention, SagaOutcome, StepRejected, idempotency_key
from sagas.crash_points import observe
from sagas.definition import registry
from sagas.definition.identity import step_key
from sagas.definition.steps import forward_step
from sagas.errors import CancelRefused, ChainBroken
from sagas.journal import local_step
from sagas.journal.cancelling import request_cancel
from sagas.models import Saga, SagaAttempt, SagaStep
from sagas.run.chain import Chain, Plan
from sagas.run.state import RunState
from tests.unit.sagas.saga_running import (
    Context,
    Register,
    begin,
    is_ended,
    journal_of,
    run_to_end,
)
from tests.unit.sagas.scripted_sagas import Act, Part, Script, chain, claimed_by, raising
from tests.unit.waiting import in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)

SetHook = Callable[[str, Callable[[SagaOutcome], None]], None]
NAMES = ("fly", "stay", "eat")
DONE = dict.fromkeys(("fly:F", "stay:F", "eat:F"), ("done", 1))


@pytest.fixture
def tour(register: Register, script: Script) -> str:
    register(script.saga("tour", *chain(*(Part(name) for name in NAMES))))
    return "tour"


@pytest.fixture
def reached() -> Iterator[list[str]]:
    """The points that the worker reaches."""
    points: list[str] = []
    end = observe(lambda point, where: points.append(f"{point} {where}".rstrip()))
    yield points
    end()


def committed(saga: UUID) -> tuple[int, str]:
    """How many steps, and the saga's status, as another connection sees them."""
    seen: list[tuple[int, str]] = []

    def look(_: threading.Event) -> None:
        rows = SagaStep.objects.filter(saga_id=saga).count()
        seen.append((rows, Saga.objects.get(id=saga).status))

    with in_thread(look):
        pass
    return seen[0]


def cancel(saga: UUID) -> None:
    """From another connection, as a person does."""

    def ask(_: threading.Event) -> None:
        with transaction.atomic():
            request_cancel(saga, who="a test", reason="changed my mind")

    with in_thread(ask):
        pass


class TestOneTransaction:
    def test_has_the_steps_and_the_end(
        self, tour: str, reached: list[str], on_finish: SetHook
    ) -> None:
        outcomes: list[SagaOutcome] = []
        on_finish("tour", outcomes.append)
        saga = run_to_end(begin(tour))
        assert saga.status == "completed"
        assert journal_of(saga.id) == DONE
        assert SagaAttempt.objects.filter(saga_id=saga.id).count() == 3
        assert [outcome.ending for outcome in outcomes] == ["completed"]
        after = reached[reached.index("claimed") + 1 :]
        assert after == [
            "inside_local_step fly:F",
            "inside_chain stay:F",
            "inside_local_step stay:F",
            "inside_chain eat:F",
            "inside_local_step eat:F",
            "before_terminal_commit",
            "step_done fly:F",
            "step_done stay:F",
            "step_done eat:F",
            "after_terminal_commit",
        ]

    @pytest.mark.on_postgresql  # on SQLite nobody else can look meanwhile
    def test_shows_nothing_before_its_commit(
        self, tour: str, script: Script, on_finish: SetHook
    ) -> None:
        seen: list[tuple[int, str]] = []
        saga = begin(tour)
        script.acts["eat"] = lambda _: seen.append(committed(saga))
        on_finish("tour", lambda _: seen.append(committed(saga)))
        run_to_end(saga)
        assert seen == [(0, "running"), (0, "running")]

    @pytest.mark.on_postgresql
    def test_has_one_number(self, tour: str) -> None:
        saga = run_to_end(begin(tour)).id
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT DISTINCT xmin::text FROM sagas_step UNION SELECT xmin::text"
                " FROM sagas_attempt UNION SELECT xmin::text FROM sagas_saga"
            )
            assert len(cursor.fetchall()) == 1
        assert is_ended(saga)

    def test_ends_the_saga_only_behind_the_last_step(
        self, register: Register, script: Script, reached: list[str]
    ) -> None:
        parts = [Part("a"), Part("b"), Part("call", external=True), Part("c")]
        register(script.saga("mixed", *chain(*parts)))
        saga = run_to_end(begin("mixed"))
        assert saga.status == "completed"
        assert script.calls == ["a", "b", "call", "c"]
        assert [point for point in reached if point.startswith("inside_chain")] == [
            "inside_chain b:F"
        ]
        assert reached.count("before_terminal_commit") == 1

    def test_is_not_made_where_steps_run_side_by_side(
        self, register: Register, script: Script, reached: list[str]
    ) -> None:
        register(script.saga("wide", Part("a"), Part("b"), Part("c", after=("a", "b"))))
        assert run_to_end(begin("wide")).status == "completed"
        assert not [point for point in reached if point.startswith("inside_chain")]

    @pytest.mark.usefixtures("one_by_one")
    def test_is_not_made_where_the_setting_says_so(self, tour: str, reached: list[str]) -> None:
        assert run_to_end(begin(tour)).status == "completed"
        assert not [point for point in reached if point.startswith("inside_chain")]


def test_each_step_sees_what_the_one_before_has_left(tour: str, script: Script) -> None:
    seen: dict[str, Context] = {}
    keys: dict[str, str] = {}

    def act(name: str) -> Act:
        def do(context: Context) -> Context:
            own = {k: v for k, v in context.items() if not k.startswith("__")}
            seen[name] = copy.deepcopy(own)
            keys[name] = idempotency_key()
            context["list"].append(name)
            return {name: (1, 2)}

        return do

    script.acts |= {name: act(name) for name in NAMES}
    saga = begin(tour, list=[])
    run_to_end(saga)
    own = {"saga_id": str(saga)}
    assert seen["fly"] == own | {"list": []}
    assert seen["stay"] == own | {"list": ["fly"], "fly": (1, 2)}
    assert seen["eat"] == own | {"list": ["fly", "stay"], "fly": (1, 2), "stay": (1, 2)}
    assert keys == {name: step_key(saga, name, "F") for name in NAMES}


UNSTORABLE = object()
ACTS: dict[str, dict[str, Callable[[], Act]]] = {
    "nothing fails": {},
    "the first says no": {"fly": lambda: raising(StepRejected("no"))},
    "the second says no": {"stay": lambda: raising(StepRejected("no"))},
    "the last says no": {"eat": lambda: raising(StepRejected("no"))},
    "the second fails for good": {"stay": lambda: raising(ValueError("broken"))},
    "the second needs a person": {"stay": lambda: raising(NeedsAttention("look"))},
    "the last fails each time": {"eat": lambda: raising(OSError("away"))},
    "the second returns what cannot be kept": {"stay": lambda: lambda _: {"x": UNSTORABLE}},
    "an undo fails": {
        "eat": lambda: raising(StepRejected("no")),
        "unfly": lambda: raising(ValueError("stuck")),
    },
    "the second leaves by SystemExit": {"stay": lambda: raising(SystemExit(3))},
}


@pytest.mark.parametrize("pivot", [None, "fly", "stay", "eat"])
@pytest.mark.parametrize("acts", ACTS.values(), ids=ACTS)
def test_whatever_fails_the_journal_is_that_of_single_steps(
    acts: dict[str, Callable[[], Act]],
    pivot: str | None,
    register: Register,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
) -> None:
    found = []
    for together in (True, False):
        settings.SAGA_COMMIT_TOGETHER = together
        name = f"tour-{together}"
        script = Script()
        parts = [Part(each, pivot=each == pivot, max_retries=1) for each in NAMES]
        register(script.saga(name, *chain(*parts)))
        script.acts |= {step: make() for step, make in acts.items()}
        saga = run_to_end(begin(name))
        attempts = SagaAttempt.objects.filter(saga_id=saga.id).order_by("id")
        found.append(
            (
                saga.status,
                saga.failure,
                saga.park_reason,
                saga.past_pivot,
                {
                    f"{s.step}:{s.kind}": (s.status, s.attempt, s.failures, s.error, s.result)
                    for s in SagaStep.objects.filter(saga_id=saga.id)
                },
                sorted((a.step, a.kind, a.attempt, a.status) for a in attempts),
            )
        )
    assert found[0] == found[1]


class TestTheHook:
    def test_that_fails_once_is_called_again_and_the_steps_once(
        self, tour: str, on_finish: SetHook
    ) -> None:
        left = [ValueError("not now")]

        def hook(_: SagaOutcome) -> None:
            if left:
                raise left.pop()

        on_finish("tour", hook)
        saga = run_to_end(begin(tour))
        assert saga.status == "completed"
        assert journal_of(saga.id) == DONE
        assert SagaAttempt.objects.filter(saga_id=saga.id).count() == 3

    def test_that_keeps_failing_parks_the_saga(self, tour: str, on_finish: SetHook) -> None:
        on_finish("tour", lambda _: 1 / 0)  # type: ignore[arg-type]
        saga = run_to_end(begin(tour))
        assert saga.status == "parked"
        assert saga.park_reason.startswith("its on_finish hook fails: ZeroDivisionError")
        assert journal_of(saga.id) == DONE

    def test_that_rolls_back_without_a_word_ends_nothing(
        self, tour: str, on_finish: SetHook
    ) -> None:
        on_finish("tour", lambda _: transaction.set_rollback(True))
        saga = run_to_end(begin(tour))
        assert saga.status == "parked"
        assert saga.park_reason == "its on_finish hook has the transaction rolled back"
        assert journal_of(saga.id) == DONE

    def test_sees_the_whole_context(self, tour: str, script: Script, on_finish: SetHook) -> None:
        outcomes: list[SagaOutcome] = []
        on_finish("tour", outcomes.append)
        script.acts |= {"fly": lambda _: {"seat": 7}, "eat": lambda _: {"meal": "soup"}}
        saga = begin(tour, wish="sun")
        run_to_end(saga)
        assert outcomes[0].context == {
            "wish": "sun",
            "seat": 7,
            "meal": "soup",
            "saga_id": str(saga),
        }


@pytest.mark.on_postgresql  # on SQLite nobody else can write meanwhile
class TestACancel:
    @pytest.mark.parametrize("during", NAMES)
    def test_that_comes_meanwhile_is_applied(
        self, during: str, tour: str, script: Script, on_finish: SetHook
    ) -> None:
        outcomes: list[SagaOutcome] = []
        on_finish("tour", outcomes.append)
        saga, left = begin(tour), [1]

        def act(_: Context) -> None:
            if left:
                left.pop()
                cancel(saga)

        script.acts[during] = act
        ended = run_to_end(saga)
        assert (ended.status, ended.cancelled) == ("rolled_back", True)
        assert ended.failure == "changed my mind"
        assert [(o.ending, o.cancelled) for o in outcomes] == [("rolled_back", True)]
        done = {label for label, (status, _) in journal_of(saga).items() if status == "done"}
        assert {f"{label[:-1]}C" for label in done if label.endswith("F")} <= done

    @pytest.mark.parametrize("pivot", NAMES)
    def test_and_a_pivot_exclude_each_other(
        self, pivot: str, register: Register, script: Script
    ) -> None:
        parts = [Part(each, pivot=each == pivot) for each in NAMES]
        register(script.saga("trip", *chain(*parts)))
        saga = begin("trip")
        refused: list[CancelRefused] = []
        left = [1]

        def act(_: Context) -> None:
            if left:
                left.pop()
                try:
                    cancel(saga)
                except CancelRefused as error:
                    refused.append(error)

        script.acts["eat"] = act
        ended = run_to_end(saga)
        # The pivot is not begun before the chain's commit, so the cancel was accepted.
        assert not refused
        assert (ended.status, ended.cancelled) == ("rolled_back", True)


def test_the_deadline_that_passes_meanwhile_undoes_the_saga(tour: str, script: Script) -> None:
    saga = begin(tour)
    deadline = timezone.now() + timedelta(seconds=1)
    Saga.objects.filter(id=saga).update(deadline=deadline)
    script.acts["fly"] = lambda _: until(lambda: timezone.now() > deadline)
    ended = run_to_end(saga)
    assert (ended.status, ended.failure) == ("rolled_back", "its deadline has passed")


class TestACommitWhoseAnswerIsLost:
    @pytest.mark.parametrize("is_made", [True, False])
    def test_is_asked_for(
        self,
        is_made: bool,  # noqa: FBT001
        tour: str,
        script: Script,
        on_finish: SetHook,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        outcomes: list[SagaOutcome] = []
        on_finish("tour", outcomes.append)
        real, left = local_step.do_locally, [1]

        def do_locally(entry: Any, **kwargs: Any) -> Any:
            if left and is_made:
                real(entry, **kwargs)
            elif not left:
                return real(entry, **kwargs)
            left.pop()
            raise OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(local_step, "do_locally", do_locally)
        saga = run_to_end(begin(tour))
        assert saga.status == "completed"
        assert journal_of(saga.id) == DONE
        assert SagaAttempt.objects.filter(saga_id=saga.id).count() == 3
        assert script.calls == [*NAMES]
        assert len(outcomes) == 1


def test_a_run_that_is_to_stop_stops_between_two_steps(tour: str, script: Script) -> None:
    """Nothing of the chain is committed, and the next worker begins anew."""
    saga = begin(tour)
    claimed = claimed_by("w")
    state = RunState(claimed)
    found = registry.saga_type(tour)
    assert found is not None
    levels = found.instances.new().get_execution_order()
    first, *others = [forward_step(step) for (step,) in levels]
    together = Chain(Plan(tuple(others), ends=True, all_steps=NAMES), first, claimed.context, state)
    script.acts["stay"] = lambda _: state.suspend("the worker is ending")
    with pytest.raises(ChainBroken):
        together.go_on({})
    assert script.calls == ["stay"]
    assert journal_of(saga) == {}
