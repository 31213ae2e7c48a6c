"""Two versions of a saga, side by side: what has begun goes on with the class that began it."""

import json
from dataclasses import replace

import pytest
from sagaz import Saga as SagaClass
from sagaz import action
from sagaz.core.triggers import trigger

from brokers import Record
from saga_runtime.backoff import Backoff
from sagas import call_in_thread
from sagas.definition.identity import saga_id
from sagas.inbox import accepting
from sagas.models import Saga
from tests.unit.sagas.saga_running import QUICK, Context, Register, journal_of, working
from tests.unit.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

SOURCE = "letter.send"
calls: list[str] = []


class Post:
    """The steps call it; it can be closed."""

    is_open = False


class Letter(SagaClass):
    saga_name = "letter"

    @trigger(source=SOURCE, idempotency_key="letter")
    def on_send(self, event: Context) -> Context:
        return event | {"made_by": 1}

    @action("write")
    def write(self, ctx: Context) -> None:
        calls.append(f"{ctx['letter']}: write 1")

    @action("stamp", depends_on=["write"], max_retries=10_000)
    async def stamp(self, ctx: Context) -> None:
        await call_in_thread(calls.append, f"{ctx['letter']}: stamp 1")
        if not Post.is_open:
            raise ConnectionError("closed")


class NewLetter(SagaClass):
    saga_name = "letter"
    version = 2

    @trigger(source=SOURCE, idempotency_key="letter")
    def on_send(self, event: Context) -> Context:
        return event | {"made_by": 2}

    @action("type")
    def type(self, ctx: Context) -> None:
        calls.append(f"{ctx['letter']}: type 2")

    @action("mail", depends_on=["type"])
    def mail(self, ctx: Context) -> None:
        calls.append(f"{ctx['letter']}: mail {ctx['made_by']}")


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch, register: Register) -> None:
    monkeypatch.setattr(Post, "is_open", False)
    calls.clear()
    register(Letter)


def send(letter: str, *, number: int) -> None:
    headers = {
        "ce_specversion": b"1.0",
        "ce_id": str(number).encode(),
        "ce_type": SOURCE.encode(),
        "ce_source": b"/tests",
        "content-type": b"application/json",
    }
    value = json.dumps({"letter": letter}).encode()
    record = Record("letters", 0, number, letter.encode(), value, tuple(headers.items()))
    assert accepting.accept([record], consumer="sagas") == 1


def saga(letter: str) -> Saga:
    return Saga.objects.get(id=saga_id("letter", letter))


def is_completed(letter: str) -> bool:
    return saga(letter).status == "completed"


def test_the_old_one_goes_on_and_new_commands_begin_the_new_one(register: Register) -> None:
    timing = replace(QUICK, retry=Backoff(first=0.001, longest=0.002))
    send("A", number=1)
    with working(timing=timing):
        until(lambda: "A: stamp 1" in calls)
    assert saga("A").status == "running"

    register(NewLetter)  # the deploy, with the old class still there
    send("B", number=2)
    with working(timing=timing):
        until(lambda: is_completed("B"))
        assert not is_completed("A")
        Post.is_open = True
        until(lambda: is_completed("A"))

    assert (saga("A").version, saga("B").version) == (1, 2)
    assert set(journal_of(saga("A").id)) == {"write:F", "stamp:F"}
    assert set(journal_of(saga("B").id)) == {"type:F", "mail:F"}
    assert calls.count("A: write 1") == 1
    assert [call for call in calls if call.startswith("B")] == ["B: type 2", "B: mail 2"]


def test_an_accepted_one_of_which_nothing_has_begun_keeps_its_version_too(
    register: Register,
) -> None:
    Post.is_open = True
    send("A", number=1)
    register(NewLetter)
    with working():
        until(lambda: is_completed("A"))
    assert calls == ["A: write 1", "A: stamp 1"]


def test_the_newest_begins_whatever_the_order_of_registration(register: Register) -> None:
    class Newest(NewLetter):
        version = 10

        @trigger(source=SOURCE, idempotency_key="letter")
        def on_send(self, event: Context) -> Context:
            return event | {"made_by": 10}

    register(Newest, NewLetter)
    send("A", number=1)
    with working():
        until(lambda: is_completed("A"))
    assert saga("A").version == 10
    assert calls == ["A: type 2", "A: mail 10"]
