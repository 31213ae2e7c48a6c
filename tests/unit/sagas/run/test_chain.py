"""Local steps that follow each other, and the saga's end, commit together; whatever fails, the
journal and the effects are those of steps that commit one by one."""

import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction
from django.utils import timezone

from sagas import NeedsAttention, SagaOutcome, StepRejected, idempotency_key
from sagas.crash_points import observe
from sagas.definition import registry
from sagas.definition.identity import step_key
from sagas.definition.steps import forward_step
from sagas.errors import CancelRefused, ChainBroken
from sagas.journal import local_step
from sagas.journal.cancelling import request_cancel
from sagas.models import Saga, SagaStep
from sagas.run.chain import Chain
from sagas.run.plans import Plan
from sagas.run.state import RunState
from tests.unit.sagas.saga_running import (
    QUICK,
    Context,
    Register,
    begin,
    history_of,
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
        assert history_of(saga.id) == [(f"{name}:F", 1, "done") for name in NAMES]
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
                "SELECT DISTINCT xmin::text FROM sagas_step UNION SELECT xmin::text FROM sagas_saga"
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


@pytest.mark.parametrize("external", [None, *NAMES])
@pytest.mark.parametrize("pivot", [None, *NAMES])
@pytest.mark.parametrize("acts", ACTS.values(), ids=ACTS)
def test_whatever_fails_the_journal_is_that_of_single_steps(
    acts: dict[str, Callable[[], Act]],
    pivot: str | None,
    external: str | None,
    *,
    register: Register,
    settings: Any,
    reached: list[str],
) -> None:
    found = []
    for together in (True, False):
        settings.SAGA_COMMIT_TOGETHER = together
        name = f"tour-{together}"
        script = Script()
        parts = [
            Part(each, pivot=each == pivot, external=each == external, max_retries=1)
            for each in NAMES
        ]
        register(script.saga(name, *chain(*parts)))
        script.acts |= {step: make() for step, make in acts.items()}
        saga = run_to_end(begin(name))
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
                sorted(history_of(saga.id)),
            )
        )
    assert found[0] == found[1]
    assert external or "inside_chain stay:F" in reached or acts.keys() == {"fly"}


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
        assert history_of(saga.id) == [(f"{name}:F", 1, "done") for name in NAMES]

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


class TestWhatTheHookHas:
    def test_is_a_context_of_its_own(self, tour: str, script: Script, on_finish: SetHook) -> None:
        """What it takes out of it is there again for a step that is repeated."""
        seen: list[list[int]] = []
        left = [ValueError("not now")]

        def hook(outcome: SagaOutcome) -> None:
            outcome.context["items"].clear()
            if left:
                raise left.pop()

        on_finish("tour", hook)
        script.acts["fly"] = lambda context: seen.append([*context["items"]])
        assert run_to_end(begin(tour, items=[1, 2])).status == "completed"
        assert seen == [[1, 2], [1, 2]]

    def test_is_no_key_of_a_step(self, tour: str, on_finish: SetHook) -> None:
        asked: list[str] = []

        def hook(_: SagaOutcome) -> None:
            try:
                asked.append(idempotency_key())
            except RuntimeError:
                asked.append("none")

        on_finish("tour", hook)
        run_to_end(begin(tour))
        assert asked == ["none"]

    @pytest.mark.on_postgresql
    def test_is_no_limit_of_a_step(
        self, register: Register, script: Script, on_finish: SetHook
    ) -> None:
        limits: list[tuple[str, str]] = []

        def limit() -> tuple[str, str]:
            with connection.cursor() as cursor:
                cursor.execute("SHOW statement_timeout")
                (statements,) = cursor.fetchone()
                cursor.execute("SHOW idle_in_transaction_session_timeout")
                return statements, cursor.fetchone()[0]

        register(
            script.saga("brief", Part("go", timeout=50), Part("on", after=("go",), timeout=70))
        )
        script.acts |= {name: lambda _: limits.append(limit()) for name in ("go", "on")}
        on_finish("brief", lambda _: limits.append(limit()))
        run_to_end(begin("brief"))
        assert limits[:2] == [("50s", "50s"), ("70s", "70s")]
        assert limits[2] == limit()

    @pytest.mark.on_postgresql
    def test_is_spoilt_by_an_error_that_it_catches(self, tour: str, on_finish: SetHook) -> None:
        """PostgreSQL rolls back at the COMMIT, and says so in a way that is easily missed."""

        def hook(_: SagaOutcome) -> None:
            with suppress(DatabaseError), connection.cursor() as cursor:
                cursor.execute("SELECT 1 / 0")

        on_finish("tour", hook)
        saga = run_to_end(begin(tour))
        assert saga.status == "parked"
        assert "it has caught an error of the database" in saga.park_reason
        assert journal_of(saga.id) == DONE


def test_behind_a_lost_worker_the_steps_are_done_one_by_one(tour: str, reached: list[str]) -> None:
    saga = begin(tour)
    Saga.objects.filter(id=saga).update(takeovers=1)
    assert run_to_end(saga).status == "completed"
    assert not [point for point in reached if point.startswith("inside_chain")]


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
        # All of the chain was rolled back; then each step looks for itself, the first in time.
        assert journal_of(saga) == {}
        assert script.calls == [
            *NAMES[: NAMES.index(during) + 1],
            *NAMES[NAMES.index(during) + 1 :],
        ]

    def test_is_accepted_before_the_chain_with_the_pivot_commits(
        self, register: Register, script: Script
    ) -> None:
        register(script.saga("trip", *chain(*(Part(n, pivot=n == "fly") for n in NAMES))))
        saga, left = begin("trip"), [1]
        script.acts["eat"] = lambda _: cancel(saga) if left and left.pop() else None
        ended = run_to_end(saga)
        assert (ended.status, ended.cancelled, journal_of(saga)) == ("rolled_back", True, {})

    def test_is_refused_behind_that_commit(self, register: Register, script: Script) -> None:
        parts = [Part("fly"), Part("stay", pivot=True), Part("call", external=True)]
        register(script.saga("trip", *chain(*parts)))
        saga = begin("trip")
        refused: list[str] = []

        def ask(_: Context) -> None:
            def run(_: threading.Event) -> None:
                try:
                    with transaction.atomic():
                        request_cancel(saga, who="a test", reason="changed my mind")
                except CancelRefused as error:
                    refused.append(str(error))

            with in_thread(run):
                pass

        script.acts["call"] = ask
        assert run_to_end(saga).status == "completed"
        assert len(refused) == 1


@pytest.mark.parametrize("pivot", [None, "fly", "eat"])
def test_the_deadline_that_passes_meanwhile_undoes_the_saga(
    pivot: str | None, register: Register, script: Script
) -> None:
    register(script.saga("tour", *chain(*(Part(n, pivot=n == pivot) for n in NAMES))))
    saga = begin("tour")
    deadline = timezone.now() + timedelta(seconds=30)
    Saga.objects.filter(id=saga).update(deadline=deadline)
    claimed = claimed_by("w", lease=60)
    clock = [time.monotonic()]
    state = RunState(claimed, clock=lambda: clock[0])
    found = registry.saga_type("tour")
    assert found is not None
    levels = found.instances.new().get_execution_order()
    first, *others = [forward_step(step) for (step,) in levels]
    plan = Plan(tuple(others), ends=True, all_steps=NAMES)
    together = Chain(plan, first, claimed.context, state, QUICK)
    script.acts["stay"] = lambda _: clock.append(clock.pop() + 31)
    with pytest.raises(ChainBroken):
        together.go_on({})
    assert script.calls == ["stay"]


def test_a_pivot_that_was_rolled_back_is_not_begun(register: Register, script: Script) -> None:
    """Nothing of the chain is done, so the deadline undoes the saga and does not park it."""
    register(script.saga("tour", *chain(*(Part(n, pivot=n == "fly") for n in NAMES))))
    saga = begin("tour")
    deadline = timezone.now() + timedelta(seconds=1)
    Saga.objects.filter(id=saga).update(deadline=deadline)
    script.acts["fly"] = lambda _: until(lambda: timezone.now() > deadline)
    ended = run_to_end(saga)
    assert (ended.status, ended.failure) == ("rolled_back", "its deadline has passed")
    assert journal_of(saga) == {}


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
        real, chained = local_step.do_locally, []

        def do_locally(entry: Any, **kwargs: Any) -> Any:
            if kwargs["together"] is None:
                return real(entry, **kwargs)
            chained.append(entry.step.step)
            if is_made:
                real(entry, **kwargs)
            raise OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(local_step, "do_locally", do_locally)
        saga = run_to_end(begin(tour))
        assert saga.status == "completed"
        assert journal_of(saga.id) == DONE
        assert history_of(saga.id) == [(f"{name}:F", 1, "done") for name in NAMES]
        assert script.calls == [*NAMES]
        assert len(outcomes) == 1
        # A chain whose commit fails each time, by what it has deferred, is not tried without end.
        assert chained == ["fly"]

    def test_is_another_workers_where_the_moment_differs(
        self, tour: str, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The run stops there, and writes nothing: the next claim reads what is true."""
        real = local_step.do_locally

        def do_locally(entry: Any, **kwargs: Any) -> Any:
            real(entry, **kwargs)
            moment = timezone.now() + timedelta(hours=1)
            SagaStep.objects.filter(step="fly").update(finished_at=moment)
            raise OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(local_step, "do_locally", do_locally)
        saga = run_to_end(begin(tour))
        assert saga.status == "completed"
        assert script.calls == [*NAMES]
        assert history_of(saga.id) == [(f"{name}:F", 1, "done") for name in NAMES]


def test_a_run_that_is_to_stop_stops_between_two_steps(tour: str, script: Script) -> None:
    begin(tour)
    claimed = claimed_by("w")
    state = RunState(claimed)
    found = registry.saga_type(tour)
    assert found is not None
    levels = found.instances.new().get_execution_order()
    first, *others = [forward_step(step) for (step,) in levels]
    plan = Plan(tuple(others), ends=True, all_steps=NAMES)
    together = Chain(plan, first, claimed.context, state, QUICK)
    script.acts["stay"] = lambda _: state.suspend("the worker is ending")
    with pytest.raises(ChainBroken):
        together.go_on({})
    assert script.calls == ["stay"]
