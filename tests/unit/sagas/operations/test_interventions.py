"""What a person does about parked and running sagas, by way of `manage.py sagas`."""

import json
import os
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from sagaz import Saga as SagaClass
from sagaz import action, compensate

from sagas import StepRejected
from sagas.definition.hooks import Ending, SagaOutcome
from sagas.models import Intervention, Saga, SagaStep
from tests.unit.sagas.saga_running import Context, Register, begin, journal_of, run_to_end, working
from tests.unit.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


class Provider:
    """What the steps below call; it can be away."""

    away = True
    undone = 0


class Parcel(SagaClass):
    saga_name = "parcel"

    @action("pack")
    def pack(self, _ctx: Context) -> Context:
        return {"packed": True}

    @compensate("pack", max_retries=1)
    async def unpack(self, _ctx: Context) -> None:
        if Provider.away:
            raise ConnectionError("nobody there")
        Provider.undone += 1

    @action("label", depends_on=["pack"])
    def label(self, ctx: Context) -> None:
        if not ctx.get("good"):
            raise StepRejected("no such address")

    @action("hand_over", depends_on=["label"], max_retries=1, pivot=True)
    async def hand_over(self, _ctx: Context) -> Context:
        if Provider.away:
            raise ConnectionError("nobody there")
        return {"receipt": 7}


@pytest.fixture(autouse=True)
def _parcels(register: Register) -> None:
    register(Parcel)
    Provider.away = True
    Provider.undone = 0


@pytest.fixture
def undoing() -> UUID:
    """Parked while it was undone."""
    saga = run_to_end(begin("parcel", key="P-1", good=False))
    assert saga.status == "parked"
    return saga.id


@pytest.fixture
def beyond() -> UUID:
    """Parked past its pivot."""
    saga = run_to_end(begin("parcel", key="P-1", good=True))
    assert saga.status == "parked"
    return saga.id


def sagas(*arguments: str) -> None:
    call_command("sagas", *arguments)


class TestRetry:
    def test_finishes_what_was_being_undone(self, undoing: UUID) -> None:
        Provider.away = False
        sagas("retry", "P-1", "--why", "the provider is back")

        saga = run_to_end(undoing)

        assert (saga.status, saga.park_reason, saga.failure) == (
            "rolled_back",
            "",
            "no such address",
        )
        assert Provider.undone == 1

    def test_goes_forward_past_the_pivot(self, beyond: UUID) -> None:
        Provider.away = False
        sagas("retry", str(beyond), "--why", "the provider is back")

        assert run_to_end(beyond).status == "completed"
        assert journal_of(beyond)["hand_over:F"] == ("done", 3)

    def test_renews_the_retries(self, undoing: UUID) -> None:
        sagas("retry", "P-1", "--why", "perhaps now")

        assert run_to_end(undoing).status == "parked"
        assert journal_of(undoing)["pack:C"] == ("unknown", 4)

    def test_runs_the_hooks_of_the_end(self, undoing: UUID, on_finish: "object") -> None:
        outcomes: list[SagaOutcome] = []
        on_finish("parcel", outcomes.append)  # type: ignore[operator]
        Provider.away = False
        sagas("retry", "P-1", "--why", "the provider is back")

        run_to_end(undoing)

        assert [outcome.ending for outcome in outcomes] == [Ending.ROLLED_BACK]


def test_one_that_is_being_undone_is_not_cancelled_too(undoing: UUID) -> None:
    with pytest.raises(CommandError, match="being undone already: retry, resolve or skip"):
        sagas("cancel", "P-1", "--why", "the customer called")
    assert not Intervention.objects.exists()


def test_who_and_why_may_be_long(undoing: UUID) -> None:
    sagas("resolve", "P-1", "pack", "--undo", "--by", "y" * 300, "--why", "x" * 400)

    kept = Intervention.objects.get()
    assert (kept.who, kept.why) == ("y" * 255, "x" * 400)
    step = SagaStep.objects.get(saga=undoing, step="pack", kind="C")
    assert step.resolved_by.startswith("y" * 255)


def test_in_a_container_a_user_may_have_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    monkeypatch.setattr("getpass.getuser", nameless)
    begin("parcel", key="P-9")
    sagas("pause", "P-9", "--why", "because")
    assert Intervention.objects.get().who == f"uid {os.getuid()}"


class TestByHand:
    def test_a_compensation_that_a_person_has_seen_to(self, undoing: UUID) -> None:
        sagas("resolve", "P-1", "pack", "--undo", "--by", "ann", "--why", "unpacked it myself")

        assert run_to_end(undoing).status == "rolled_back"
        assert Provider.undone == 0
        step = SagaStep.objects.get(saga=undoing, step="pack", kind="C")
        assert (step.status, step.resolved_by) == ("done", "ann: unpacked it myself")

    def test_a_compensation_that_is_left_out(self, undoing: UUID) -> None:
        sagas("skip", "P-1", "pack", "--why", "not worth it")

        assert run_to_end(undoing).status == "rolled_back"
        assert journal_of(undoing)["pack:C"][0] == "skipped"

    def test_a_pivot_that_a_person_has_seen_to(self, beyond: UUID) -> None:
        sagas("resolve", "P-1", "hand_over", "--why", "carried it there")

        assert run_to_end(beyond).status == "completed"

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("skip", "P-1", "pack"), "not being undone"),
            (("resolve", "P-1", "nonsense"), "it has"),
            (("resolve", "P-1", "pack"), "is done already"),
            (("resolve", "P-1", "pack", "--undo"), "not being undone"),
            (("resume", "P-1"), "is not paused"),
            (("pause", "P-1"), "still run"),
            (("retry", "P-2"), "there is no saga P-2"),
        ],
    )
    def test_refusals_change_nothing(
        self, beyond: UUID, arguments: tuple[str, ...], says: str
    ) -> None:
        with pytest.raises(CommandError, match=says):
            sagas(*arguments, "--why", "because")

        assert Saga.objects.get(id=beyond).status == "parked"
        assert not Intervention.objects.exists()

    @pytest.mark.parametrize("why", ["", " ", "\t\n", "\u200b", "\0"])
    @pytest.mark.parametrize(
        "arguments",
        [
            ("retry", "P-1"),
            ("resolve", "P-1", "hand_over"),
            ("skip", "P-1", "pack"),
            ("cancel", "P-1"),
            ("pause", "P-1"),
            ("resume", "P-1"),
        ],
        ids=lambda arguments: arguments[0],
    )
    def test_without_a_reason_nothing_is_done(
        self, beyond: UUID, arguments: tuple[str, ...], why: str
    ) -> None:
        with pytest.raises(CommandError, match="say who does it, and why: neither may be blank"):
            sagas(*arguments, "--why", why)
        with pytest.raises(CommandError, match="neither may be blank"):
            sagas(*arguments, "--why", "because", "--by", why)

        assert Saga.objects.get(id=beyond).status == "parked"
        assert not Intervention.objects.exists()

    def test_only_parked_sagas_are_retried(self) -> None:
        begin("parcel", key="P-9")
        with pytest.raises(CommandError, match="P-9 is pending"):
            sagas("retry", "P-9", "--why", "because")


def test_a_paused_saga_is_not_claimed_until_it_is_resumed() -> None:
    Provider.away = False
    paused = begin("parcel", key="P-1", good=True)
    sagas("pause", "P-1", "--why", "wait for the bank")
    other = begin("parcel", key="P-2", good=True)

    with working():
        until(lambda: Saga.objects.get(id=other).status == "completed")
        assert Saga.objects.get(id=paused).status == "pending"
        sagas("resume", "P-1", "--why", "the bank is fine")
        until(lambda: Saga.objects.get(id=paused).status == "completed")


class TestReports:
    def test_show_tells_the_timeline_and_who_did_what(
        self, undoing: UUID, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Provider.away = False
        sagas("retry", "P-1", "--by", "ann", "--why", "the provider is back")
        run_to_end(undoing)

        sagas("show", "P-1")

        text = capsys.readouterr().out
        for part in ("rolled_back", "no such address", f"{undoing}:pack:C", "ann", "is back"):
            assert part in text

    def test_show_as_json(self, undoing: UUID, capsys: pytest.CaptureFixture[str]) -> None:
        sagas("show", str(undoing), "--json")

        report = json.loads(capsys.readouterr().out)
        assert report["saga"]["status"] == "parked"
        assert [(s["step"], s["kind"], s["status"]) for s in report["steps"]] == [
            ("pack", "forward", "done"),
            ("label", "forward", "failed"),
            ("pack", "compensation", "unknown"),
        ]

    def test_list_filters_by_status(
        self, undoing: UUID, capsys: pytest.CaptureFixture[str]
    ) -> None:
        begin("parcel", key="P-2")
        sagas("list", "--status", "parked", "--json")
        assert [row["key"] for row in json.loads(capsys.readouterr().out)] == ["P-1"]

        sagas("list")
        text = capsys.readouterr().out
        assert str(undoing) in text
        assert "P-2" in text


def test_a_business_key_that_is_a_uuid_is_found() -> None:
    key = "550e8400-e29b-41d4-a716-446655440000"
    begin("parcel", key=key)

    sagas("pause", key, "--why", "wait for the bank")

    assert Saga.objects.get(key=key).paused
