"""Walks the table of docs/failures.md: each cell is carried out."""

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import pytest
from django.db import OperationalError
from sagaz import Saga as SagaClass
from sagaz import SagaListener, action, compensate
from sagaz.core.triggers import trigger

from brokers import Record
from saga_runtime.text import LONGEST_ERROR
from sagas import NeedsAttention, StepRejected
from sagas.definition.hooks import SagaOutcome
from sagas.errors import CancelRequested, LeaseLost, UnstorableValue
from sagas.inbox import accepting
from sagas.journal import codec
from sagas.journal.refusals import refusal
from sagas.models import ACTIVE, RefusedCommand, Saga, SagaStep
from tests.unit.sagas.saga_running import Context, Register, begin, working
from tests.unit.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = Path(__file__).parents[4] / "docs/failures.md"
RETRIES = 1
HEARD = 5  # it begins, it is done; the listener: both steps are done, and the saga
ANY = "\N{EN DASH}"


class Odd(BaseException):
    """What sagaz takes for success."""


class UnprintableError(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")

    __repr__ = __str__


class LyingError(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> NoReturn:  # type: ignore[override]
        raise RuntimeError("no class")


def raising(make: Callable[[], BaseException]) -> Callable[[], Any]:
    def act() -> NoReturn:
        raise make()

    return act


async def cancel_itself() -> None:
    """As async-timeout 4 does: by a timer, and never taken back."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0, task.cancel)
    await asyncio.sleep(60)


async def cancel_itself_at_last() -> None:
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def cancel_itself_and_catch() -> None:
    try:
        await cancel_itself()
    except asyncio.CancelledError:
        return


async def take_forever() -> None:
    await asyncio.sleep(600)


def recurse() -> None:
    recurse()


NO = StepRejected
AWAY = ConnectionError("away")
ENDS: dict[str, Callable[[], Any]] = {
    "its return": lambda: None,
    "`StepRejected`": raising(lambda: NO("no")),
    "`StepRejected` in an `ExceptionGroup`": raising(
        lambda: ExceptionGroup("g", [ExceptionGroup("g", [NO("no")])])
    ),
    "`StepRejected` beside another error in an `ExceptionGroup`": raising(
        lambda: ExceptionGroup("g", [AWAY, NO("no")])
    ),
    "`NeedsAttention`": raising(lambda: NeedsAttention("look")),
    "a result that the journal cannot keep": lambda: {"result": object()},
    "`ValueError`, as any other `Exception`": raising(lambda: ValueError("odd")),
    "`TimeoutError`": raising(TimeoutError),
    "its `timeout_seconds`": take_forever,
    "`asyncio.CancelledError`": raising(asyncio.CancelledError),
    "a cancel of its own task": cancel_itself,
    "a cancel of its own task, behind its last `await`": cancel_itself_at_last,
    "a cancel of its own task, which it catches and returns": cancel_itself_and_catch,
    "`GeneratorExit`": raising(GeneratorExit),
    "`KeyboardInterrupt`": raising(KeyboardInterrupt),
    "`SystemExit`": raising(lambda: SystemExit(3)),
    "`StopIteration`": raising(lambda: StopIteration("odd")),
    "`StopAsyncIteration`": raising(lambda: StopAsyncIteration("odd")),
    "a `BaseException` of the app's own": raising(lambda: Odd("odd")),
    "`BaseExceptionGroup`": raising(lambda: BaseExceptionGroup("g", [SystemExit(3)])),
    "`ExceptionGroup`": raising(lambda: ExceptionGroup("g", [AWAY, ValueError("odd")])),
    "`RecursionError`": recurse,
    "`MemoryError`": raising(MemoryError),
    "an error whose `__str__` and `__repr__` raise": raising(UnprintableError),
    "an error whose `__class__` raises": raising(LyingError),
    "an error whose text holds NUL and half a surrogate pair": raising(
        lambda: ValueError("a\0b\ud800")
    ),
    "an error with 3 MB of text": raising(lambda: ValueError("x" * 3_000_000)),
    "`OperationalError`, our database being there": raising(lambda: OperationalError("away")),
    "`LeaseLost`, raised by the app": raising(lambda: LeaseLost("odd")),
    "`CancelRequested`, raised by the app": raising(lambda: CancelRequested("odd")),
}


def tables() -> Iterator[list[list[str]]]:
    """Each table of the page, its cells in their rows, but for the line below the first one."""
    text = PAGE.read_text()
    for found in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.splitlines()]
        yield [rows[0], *rows[2:]]


CELLS, WORDS = tables()
MEANINGS = {word: tuple(meaning) for word, *meaning in WORDS[1:]}


@dataclass(frozen=True, slots=True)
class Kind:
    """What foreign code there is in the saga of a column, where it fails."""

    step_is_external: bool = False
    undo_is_external: bool = False
    fails: str = "act"


COLUMNS = {
    "external step": Kind(step_is_external=True, undo_is_external=True),
    "local step": Kind(),
    "external compensation": Kind(undo_is_external=True, fails="unact"),
    "local compensation": Kind(fails="unact"),
    "hook, listener": Kind(step_is_external=True, fails="hook"),
    "`on_finish`": Kind(fails="on_finish"),
}
calls: Counter[tuple[str, str]] = Counter()


def cells(column: str) -> dict[str, str]:
    """What the page says of each end in this column; the saga's key is the end's name."""
    n = CELLS[0].index(column)
    return {row[0]: row[n] for row in CELLS[1:] if row[n] != ANY}


def test_the_page_has_each_end_and_each_column() -> None:
    assert [row[0] for row in CELLS[1:]] == [*ENDS]
    assert CELLS[0][1:] == [*COLUMNS, "trigger"]
    assert {cell for row in CELLS[1:] for cell in row[1:]} == {*MEANINGS, ANY}


def play(place: str, kind: Kind, context: Context) -> Any:
    """What a function of the app does, at this place of the saga."""
    calls[context["end"], place] += 1
    return ENDS[context["end"]]() if place == kind.fails else None


def function(place: str, kind: Kind, *, external: bool) -> Any:
    async def outside(_self: SagaClass, ctx: Context) -> Any:
        result = play(place, kind, ctx)
        return await result if asyncio.iscoroutine(result) else result

    def inside(_self: SagaClass, ctx: Context) -> Any:
        return play(place, kind, ctx)

    return outside if external else inside


def saga_of(kind: Kind) -> type[SagaClass]:
    """A saga of one step that may fail, and one behind it that says no, where there is to be
    something to undo."""

    async def hear(ctx: Context, *_: object) -> None:
        result = play("hook", kind, ctx)
        if asyncio.iscoroutine(result):
            await result

    class Listener(SagaListener):
        async def on_step_success(
            self, _name: str, _step: str, ctx: Context, _result: object
        ) -> None:
            await hear(ctx)

        async def on_saga_complete(self, _name: str, _saga: str, ctx: Context) -> None:
            await hear(ctx)

    def last(_self: SagaClass, _: Context) -> None:
        if kind.fails == "unact":
            raise StepRejected("no")

    limits: Context = {"timeout_seconds": 0.2} if kind.step_is_external else {}
    undo_limits: Context = {"timeout_seconds": 0.2} if kind.undo_is_external else {}
    step = function("act", kind, external=kind.step_is_external)
    undo = function("unact", kind, external=kind.undo_is_external)
    heard: Context = {"on_enter": hear, "on_success": hear} if kind.fails == "hook" else {}
    members = {
        "saga_name": "failing",
        "listeners": [Listener()] if kind.fails == "hook" else [],
        "act": action("act", max_retries=RETRIES, **limits, **heard)(step),
        "unact": compensate("act", max_retries=RETRIES, **undo_limits)(undo),
        "last": action("last", depends_on=["act"], max_retries=0)(last),
    }
    return type("Failing", (SagaClass,), members)


def meaning(saga: Saga, kind: Kind) -> tuple[str, ...]:
    """What has become of a saga, in the words of the page."""
    undoing = kind.fails == "unact"
    row = SagaStep.objects.get(saga=saga, step="act", kind="C" if undoing else "F")
    attempts = "all" if row.attempt == RETRIES + 1 else str(row.attempt)
    undone = SagaStep.objects.filter(saga=saga, step="act", kind="C", status="done").exists()
    return saga.status, row.status, attempts, "yes" if undone else "no"


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.usefixtures("one_by_one")
def test_column(
    column: str, register: Register, on_finish: Any, caplog: pytest.LogCaptureFixture
) -> None:
    kind, expected = COLUMNS[column], cells(column)
    register(saga_of(kind))
    reasons: dict[str, str] = {}

    def end(outcome: SagaOutcome) -> None:
        reasons[outcome.key] = outcome.reason
        play("on_finish", kind, outcome.context)

    on_finish("failing", end)
    for end_ in expected:
        begin("failing", key=end_, end=end_)
    calls.clear()
    with working(concurrency=8), caplog.at_level(logging.WARNING):
        until(lambda: not Saga.objects.filter(status__in=ACTIVE).exists(), timeout=120)
    found = {saga.key: meaning(saga, kind) for saga in Saga.objects.all()}
    assert found == {end_: MEANINGS[word] for end_, word in expected.items()}
    for saga in Saga.objects.filter(status="rolled_back"):
        # The app was told what the journal has, and the world can be told so too.
        assert reasons[saga.key] == saga.failure != ""
        assert saga.failure == saga.failure.replace("\0", "")[:4000]
    for end_, word in expected.items():
        if word == "logged":
            assert calls[end_, "hook"] == HEARD
        if word == "not ended":
            assert calls[end_, "on_finish"] == 5
    if kind.fails == "hook":
        logged = [r for r in caplog.records if "which changes nothing" in r.getMessage()]
        assert len(logged) == HEARD * sum(word == "logged" for word in expected.values())


class Begun(SagaClass):
    """Its trigger fails as it is told."""

    saga_name = "begun"

    @trigger(source="failing.begin", idempotency_key="end")
    def on_begin(self, event: Context) -> Context:
        result = ENDS[event["end"]]()
        return {"end": event["end"]} | (result or {})

    @action("act")
    def act(self, ctx: Context) -> None: ...


def test_trigger(register: Register) -> None:
    register(Begun)
    expected = cells("trigger")
    headers = {"ce_specversion": "1.0", "ce_type": "failing.begin", "ce_source": "/tests"}
    raised: dict[int, str] = {}
    for n, end in enumerate(expected):
        texts = headers | {"ce_id": str(uuid4()), "content-type": "application/json"}
        record = Record(
            topic="failing",
            partition=0,
            offset=n,
            key=b"K",
            value=json.dumps({"end": end}).encode(),
            headers=tuple((name, text.encode()) for name, text in texts.items()),
        )
        try:
            accepting.accept([record], consumer="sagas")
        except KeyboardInterrupt:
            raised[n] = "stopped"
    begun = {saga.key: saga.status for saga in Saga.objects.all()}
    kept = {row.offset: row.reason for row in RefusedCommand.objects.all()}
    found = {
        end: begun.get(end) or raised.get(n) or ("none" if kept.get(n) else "lost")
        for n, end in enumerate(expected)
    }
    assert found == {end: MEANINGS[word][0] for end, word in expected.items()}
    assert max(map(len, kept.values())) <= LONGEST_ERROR


def test_a_command_is_refused_in_so_many_words_at_most() -> None:
    """Also where what the journal cannot keep stands under a key of half a megabyte."""
    with pytest.raises(UnstorableValue) as error:
        codec.encode({"x" * 500_000: object()})
    record = Record(topic="t", partition=0, offset=0, key=None, value=None, headers=())
    assert len(refusal(record, str(error.value)).reason) <= LONGEST_ERROR
