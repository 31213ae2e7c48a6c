"""What sagaz's own hooks and listeners hear: each thing once, though a saga is interrupted."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sagaz import Saga, action, compensate
from sagaz.core.listeners import LoggingSagaListener, MetricsSagaListener

from sagas import StepRejected
from sagas.models import Saga as SagaRow
from tests.unit.sagas.saga_running import (
    HOURS,
    QUICK,
    Context,
    Register,
    begin,
    run_to_end,
    working,
)
from tests.unit.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

Heard = list[tuple[str, str]]
heard: Heard = []


def noting(event: str) -> Any:
    def note(_context: Context, step: str, *_more: object) -> None:
        heard.append((event, step))

    return note


class Listener:
    async def on_saga_start(self, *_: object) -> None:
        heard.append(("started", ""))

    async def on_saga_complete(self, *_: object) -> None:
        heard.append(("completed", ""))

    def on_saga_failed(self, *_: object) -> None:
        heard.append(("failed", ""))


class Post:
    answers: list[Exception | None] = []


class Letter(Saga):
    saga_name = "letter"
    listeners = [Listener()]

    @action("write", on_enter=noting("enter"), on_success=noting("success"))
    async def write(self, ctx: Context) -> None: ...

    @compensate("write", on_compensate=noting("undo"))
    async def tear(self, ctx: Context) -> None: ...

    @action(
        "send",
        depends_on=["write"],
        on_enter=noting("enter"),
        on_success=noting("success"),
        on_failure=noting("failure"),
    )
    async def send(self, ctx: Context) -> None:  # noqa: ARG002
        answer = Post.answers.pop(0) if Post.answers else None
        if answer is not None:
            raise answer


@pytest.fixture(autouse=True)
def _clean(register: Register) -> None:
    heard.clear()
    register(Letter)


def test_one_that_is_given_up_until_it_is_due_has_not_failed() -> None:
    Post.answers = [ConnectionError("away")]
    letter = begin("letter")
    with working(timing=replace(QUICK, retry=HOURS)):
        until(lambda: SagaRow.objects.get(id=letter).status == "waiting")
    assert heard == [("started", ""), ("enter", "write"), ("success", "write"), ("enter", "send")]

    SagaRow.objects.filter(id=letter).update(next_run_at=SagaRow.objects.get(id=letter).created_at)
    assert run_to_end(letter).status == "completed"
    assert heard[4:] == [("success", "send"), ("completed", "")]


def test_one_that_fails() -> None:
    Post.answers = [StepRejected("no stamps")]
    assert run_to_end(begin("letter")).status == "rolled_back"
    assert heard[4:] == [("failure", "send"), ("undo", "write"), ("failed", "")]


class Hostile:
    """Metrics of an app, which sagaz's own listener calls."""

    calls = 0

    def saga_started(self, _: str) -> None:
        Hostile.calls += 1
        raise SystemExit

    def record_step_duration(self, *_: object) -> None:
        Hostile.calls += 1
        task = asyncio.current_task()
        assert task is not None
        task.cancel()


METRICS = MetricsSagaListener()


class Parcel(Saga):
    saga_name = "parcel"
    listeners = [MetricsSagaListener(Hostile()), METRICS, LoggingSagaListener()]

    @action("pack")
    async def pack(self, ctx: Context) -> None: ...

    @action("send", depends_on=["pack"])
    async def send(self, ctx: Context) -> None: ...


def test_sagazs_own_listeners_hear_and_what_they_call_of_an_app_harms_nothing(
    register: Register,
) -> None:
    register(Parcel)
    assert run_to_end(begin("parcel")).status == "completed"
    assert Hostile.calls == 3
    assert METRICS.metrics.metrics["total_executed"] == 1
