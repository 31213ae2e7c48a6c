"""Steps that do not heed their cancel hold up neither their saga nor the end of their worker."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from threading import Event

import pytest
from sagaz import Saga as SagaClass
from sagaz import action
from sagaz.core.triggers import trigger

from brokers import Record
from saga_runtime.event_loop import run_loop
from sagas.inbox import accepting
from sagas.models import SagaStatus, StepStatus
from tests.unit.sagas.saga_running import QUICK, Context, Register, begin, journal_of, run_to_end
from tests.unit.sagas.scripted_sagas import Part, Script, chain


class Deaf:
    """Awaits until it is released, and catches each cancel; `cancels` counts them."""

    def __init__(self) -> None:
        self.released = Event()
        self.cancels = 0

    async def __call__(self, _context: Context | None = None) -> None:
        while not self.released.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                self.cancels += 1


@pytest.fixture
def deaf() -> Iterator[Deaf]:
    step = Deaf()
    yield step
    step.released.set()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_loop_ends_beside_a_task_that_does_not(deaf: Deaf) -> None:
    async def main() -> str:
        leave_behind.append(asyncio.create_task(deaf()))
        await asyncio.sleep(0)
        return "done"

    leave_behind: list[asyncio.Task[None]] = []
    assert run_loop(main(), last_seconds=0.1) == "done"
    assert deaf.cancels == 1


def test_a_loop_lets_its_tasks_clean_up() -> None:
    cleaned = []

    async def main() -> None:
        async def tidy() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0)
                cleaned.append("up")

        background.append(asyncio.create_task(tidy()))
        await asyncio.sleep(0)

    background: list[asyncio.Task[None]] = []
    run_loop(main())
    assert cleaned == ["up"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_last", [True, False])
def test_a_step_that_is_deaf_is_in_doubt_and_undone(
    register: Register, deaf: Deaf, caplog: pytest.LogCaptureFixture, *, is_last: bool
) -> None:
    script = Script()
    retries = 0 if is_last else 1
    fly = Part("fly", external=True, max_retries=retries, timeout=0.1)
    register(script.saga("tour", *chain(Part("book"), fly)))
    script.acts["fly"] = deaf if is_last else lambda c: deaf(c) if not deaf.cancels else None
    with caplog.at_level(logging.ERROR, logger="sagas"):
        timing = replace(QUICK, cancel_grace=0.1, loop_end=0.1)
        saga = run_to_end(begin("tour"), timing=timing)  # its worker has ended too
    assert deaf.cancels >= 2
    assert "does not heed that it is cancelled" in caplog.text
    if is_last:
        assert (saga.status, saga.failure) == (SagaStatus.ROLLED_BACK, "timed out")
        journal = journal_of(saga.id)
        assert journal["fly:F"][0] == StepStatus.UNKNOWN
        assert journal["fly:C"][0] == journal["book:C"][0] == StepStatus.DONE
    else:
        assert saga.status == SagaStatus.COMPLETED


@pytest.mark.django_db(transaction=True)
def test_what_a_trigger_leaves_behind_holds_up_no_command(register: Register, deaf: Deaf) -> None:
    left: list[asyncio.Task[None]] = []

    class Tour(SagaClass):
        saga_name = "tour"

        @trigger(source="tour.book", idempotency_key="trip")
        async def on_book(self, _event: Context) -> Context:
            left.append(asyncio.create_task(deaf()))
            await asyncio.sleep(0)
            return {}

        @action("fly")
        def fly(self, ctx: Context) -> None: ...

    register(Tour)
    headers = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "tour.book"}
    texts = tuple((f"ce_{name}", text.encode()) for name, text in headers.items())
    record = Record("tours", 0, 0, b"k", b'{"trip": "T"}', texts)
    assert accepting.accept([record], consumer="test") == 1
