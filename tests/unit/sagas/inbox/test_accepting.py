import asyncio
import base64
import dataclasses
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sagaz import Saga as SagaClass
from sagaz import action
from sagaz.core.triggers import trigger

from brokers import Message, Record
from brokers.memory import MemoryBroker
from saga_runtime.backoff import Backoff
from sagas.definition.identity import saga_id
from sagas.definition.registry import cancel_on
from sagas.errors import SagaDefinitionError
from sagas.inbox import accepting
from sagas.inbox.consumer import SagaConsumer
from sagas.journal import claims, codec
from sagas.models import InboxMessage, RefusedCommand, Saga
from tests import strategies
from tests.unit.sagas.saga_running import Context, Register
from tests.unit.waiting import in_thread, until

TOPIC = "travel.commands"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Travel(SagaClass):
    saga_name = "travel"

    @trigger(source="travel.book", idempotency_key="trip")
    def on_book(self, event: Context) -> Context | None:
        if event.get("ignore"):
            return None
        return {"trip": event["trip"], "price": Decimal(event.get("price", "1"))}

    @trigger(source="travel.async", idempotency_key=lambda event: event["trip"])
    async def on_async(self, event: Context) -> Context:
        return {"trip": event["trip"]}

    @trigger(source="travel.keyless")
    def on_keyless(self, event: Context) -> Context:
        return {"event": event}

    @action("fly")
    def fly(self, ctx: Context) -> None: ...


@pytest.fixture(autouse=True)
def _travel(register: Register) -> None:
    register(Travel)


def record(
    value: object = None,
    *,
    offset: int = 0,
    raw: bytes | None = None,
    without: str = "",
    **headers: str,
) -> Record:
    """A command as it comes from the broker; `ce_id="…"` and so on replace headers."""
    texts = {
        "ce_specversion": "1.0",
        "ce_id": str(uuid4()),
        "ce_type": "travel.book",
        "ce_source": "/tests",
        "ce_subject": "K",
        "content-type": "application/json",
        "x-correlation-id": "trace-1",
    } | headers
    texts.pop(without, None)
    return Record(
        topic=TOPIC,
        partition=0,
        offset=offset,
        key=b"K",
        value=json.dumps(value).encode() if raw is None else raw,
        headers=tuple((name, text.encode()) for name, text in texts.items()),
    )


class Fragile(SagaClass):
    """Its trigger and its keys raise what the payload says, by name."""

    saga_name = "fragile"

    @trigger(source="fragile.sync", idempotency_key="n")
    def on_sync(self, event: Context) -> Context:
        raise RAISED[event["raises"]]

    @trigger(source="fragile.async", idempotency_key="n")
    async def on_async(self, event: Context) -> Context:
        raise RAISED[event["raises"]]

    @trigger(source="fragile.key", idempotency_key=lambda event: raising(event["raises"]))
    def on_key(self, event: Context) -> Context:
        return event

    @action("one")
    def one(self, ctx: Context) -> None: ...


class Unspeakable(Exception):  # noqa: N818 - what it is
    def __str__(self) -> str:
        raise ValueError("it has no text")


RAISED: dict[str, BaseException] = {
    "CancelledError": asyncio.CancelledError(),
    "GeneratorExit": GeneratorExit(),
    "SystemExit": SystemExit(3),
    "RecursionError": RecursionError("too deep"),
    "StopIteration": StopIteration(),
    "Unspeakable": Unspeakable(),
    "BaseExceptionGroup": BaseExceptionGroup("several", [SystemExit(1)]),
}


def raising(name: str) -> str:
    raise RAISED[name]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def accept(*records: Record, consumer: str = "sagas") -> int:
    return accepting.accept(records, consumer=consumer)


@pytest.mark.django_db
class TestWhatAnAppsFunctionRaises:
    @pytest.mark.parametrize("name", RAISED)
    @pytest.mark.parametrize("source", ["sync", "async", "key"])
    def test_refuses_its_command_and_no_other(
        self, source: str, name: str, register: Register
    ) -> None:
        register(Fragile)
        bad = record({"n": "1", "raises": name}, ce_type=f"fragile.{source}")
        assert accept(bad, record({"trip": "T-1"}, offset=1)) == 1
        reason = RefusedCommand.objects.get().reason
        assert name in reason or (source, name) == ("async", "StopIteration")
        assert ("not in the payload" if source == "key" else "cannot read it") in reason

    @pytest.mark.usefixtures("saga_registry")
    @pytest.mark.parametrize("name", RAISED)
    def test_of_a_cancel_too(self, name: str) -> None:
        cancel_on(
            "travel.off", saga="travel", idempotency_key="trip", reason=lambda _: raising(name)
        )
        assert accept(record({"trip": "T-1"}, ce_type="travel.off")) == 0
        assert "the reason for the cancel cannot be read" in RefusedCommand.objects.get().reason

    def test_is_let_through_where_a_person_stops_it(
        self, register: Register, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(RAISED, "KeyboardInterrupt", KeyboardInterrupt())
        register(Fragile)
        with pytest.raises(KeyboardInterrupt):
            accept(record({"n": "1", "raises": "KeyboardInterrupt"}, ce_type="fragile.sync"))


@pytest.mark.django_db
class TestTwoMessagesThatAreNotOne:
    def test_of_sources_and_ids_with_colons(self) -> None:
        """Of a trigger without a key."""
        pairs = [("/a", "b:c"), ("/a:b", "c"), ("/a", "b%3Ac"), ("/a:b:c", "d"), ("/a:b", "c:d")]
        commands = [
            record({}, ce_type="travel.keyless", ce_source=source, ce_id=message_id, offset=n)
            for n, (source, message_id) in enumerate(pairs)
        ]
        assert accept(*commands) == len(pairs)
        assert Saga.objects.count() == len(pairs)

    def test_keep_the_ids_that_they_had(self) -> None:
        accept(record({}, ce_type="travel.keyless", ce_source="/a:b", ce_id="77"))
        assert Saga.objects.get().key == "/a:b:77"
        assert str(saga_id("order", "refund:1")) == "2dbf07f4-6478-5325-a0e9-3cc23fc4eb0e"

    def test_no_name_takes_part_of_a_key(self) -> None:
        with pytest.raises(SagaDefinitionError, match="leave out the ':'"):
            saga_id("order:refund", "1")


@pytest.mark.django_db
class TestAccepting:
    def test_a_command_becomes_a_saga(self) -> None:
        assert accept(record({"trip": "T-1", "price": "9.90"}, traceparent=TRACEPARENT)) == 1
        saga = Saga.objects.get()
        assert saga.id == saga_id("travel", "T-1")
        assert (saga.name, saga.key, saga.status, saga.epoch) == ("travel", "T-1", "pending", 0)
        assert codec.decode(saga.input) == {"trip": "T-1", "price": Decimal("9.90")}
        assert (saga.correlation_id, saga.traceparent) == ("trace-1", TRACEPARENT)

    def test_it_is_due_at_once_by_the_clock_of_the_database(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That of this process may be wrong."""
        field = Saga._meta.get_field("next_run_at")
        in_an_hour = timezone.now() + timedelta(hours=1)
        monkeypatch.setitem(field.__dict__, "_get_default", lambda: in_an_hour)
        accept(record({"trip": "T-1"}))
        assert len(claims.claim(worker="w", limit=1, lease=timedelta(seconds=9))) == 1

    def test_redelivered_it_changes_nothing(self) -> None:
        command = record({"trip": "T-1"})
        assert [accept(command), accept(command), accept(command, command)] == [1, 0, 0]
        assert Saga.objects.count() == InboxMessage.objects.count() == 1

    def test_twice_in_one_batch(self) -> None:
        command = record({"trip": "T-1"})
        assert accept(command, command) == 1
        assert Saga.objects.count() == InboxMessage.objects.count() == 1

    def test_the_same_business_key_twice_is_one_saga_with_the_first_content(self) -> None:
        first = record({"trip": "T-1", "price": "1"})
        second = record({"trip": "T-1", "price": "2"})
        assert accept(first, second) == 1
        assert accept(record({"trip": "T-1", "price": "3"})) == 0
        assert codec.decode(Saga.objects.get().input)["price"] == Decimal(1)
        assert InboxMessage.objects.count() == 3

    def test_a_finished_saga_does_not_run_again(self) -> None:
        command = record({"trip": "T-1"})
        accept(command)
        Saga.objects.update(status="completed", finished_at=timezone.now())
        assert accept(command, record({"trip": "T-1"})) == 0
        assert Saga.objects.get().status == "completed"

    def test_a_redelivered_message_is_known_by_its_id(self) -> None:
        """Also where a deploy has changed the saga's name or its rule for the key meanwhile."""
        accept(record({"trip": "T-1"}, ce_id="M-1"))
        assert accept(record({"trip": "T-2"}, ce_id="M-1")) == 0
        assert accept(record({"trip": "T-2"}, ce_id="M-1", ce_source="/elsewhere")) == 1

    def test_a_trigger_may_want_nothing(self) -> None:
        assert accept(record({"trip": "T-1", "ignore": True})) == 0
        assert (Saga.objects.count(), InboxMessage.objects.count()) == (0, 1)
        assert not RefusedCommand.objects.exists()

    def test_an_async_trigger(self) -> None:
        assert accept(record({"trip": "T-1"}, ce_type="travel.async")) == 1
        assert Saga.objects.get().key == "T-1"

    def test_without_a_business_key_the_message_is_its_own(self) -> None:
        command = record([1, 2], ce_type="travel.keyless", ce_id="M-1")
        assert accept(command, command) == 1
        assert Saga.objects.get().key == "/tests:M-1"

    def test_a_number_may_be_the_key(self) -> None:
        accept(record({"trip": 5}))
        assert Saga.objects.get().key == "5"

    def test_none_is_none(self) -> None:
        assert accept() == 0

    @pytest.mark.parametrize(
        "text",
        [b"c" * 129, b"a b", b"a\nINFO forged", b"a\r", b"\x1b[2J", b"a\0", "\u202ea".encode()],
    )
    def test_a_correlation_that_is_no_visible_ascii_is_left_out(self, text: bytes) -> None:
        headers = (*record().headers[:-1], ("x-correlation-id", text), ("traceparent", text))
        accept(Record(TOPIC, 0, 0, b"K", b'{"trip": "T-1"}', headers))
        saga = Saga.objects.get()
        assert (saga.correlation_id, saga.traceparent) == ("", "")


LONG = "k" * 256

MALFORMED = {
    "not JSON": (record(raw=b"{"), "not JSON"),
    "empty": (record(raw=b""), "not JSON"),
    "no value": (Record(TOPIC, 0, 0, None, None, record().headers), "not JSON"),
    "UTF-16": (record(raw='{"trip": "T"}'.encode("utf-16")), "not JSON in UTF-8"),
    "a name twice": (record(raw=b'{"trip": "T", "trip": "U"}'), "the name 'trip' twice"),
    "a name twice further in": (
        record(raw=b'{"trip": "T", "x": [{"a": 1, "\\u0061": 2}]}'),
        "the name 'a' twice",
    ),
    "two ids": (record({"trip": "T"}, CE_Id="other"), "ce_id stands there twice"),
    "not UTF-8": (record(raw=b'{"trip": "\xff"}'), "not JSON"),
    "nested without end": (record(raw=b"[" * 100_000), "more than 64 levels"),
    "nested too deeply": (record({"trip": "T", "x": nested(64)}), "more than 64 levels"),
    "nested 492 deep": (record({"trip": "T", "x": nested(492)}), "more than 64 levels"),
    "no headers": (Record(TOPIC, 0, 0, b"K", b"{}", ()), "ce_specversion"),
    "no ce_id": (record({"trip": "T"}, without="ce_id"), "ce_id"),
    "no ce_type": (record({"trip": "T"}, without="ce_type"), "ce_type"),
    "no ce_source": (record({"trip": "T"}, without="ce_source"), "ce_source"),
    "another specversion": (record({"trip": "T"}, ce_specversion="2.0"), "ce_specversion"),
    "a header is not UTF-8": (
        Record(TOPIC, 0, 0, b"K", b"{}", (("ce_id", b"\xff"),)),
        "a header is not UTF-8",
    ),
    "a time that is none": (record({"trip": "T"}, ce_time="noon"), "ce_time"),
    "an id too long": (record({"trip": "T"}, ce_id=LONG), "ce_id"),
    "NUL in the source": (record({"trip": "T"}, ce_source="a\0"), "ce_source"),
    "unknown type": (record({"trip": "T"}, ce_type="travel.\0what"), "no saga answers"),
    "no key": (record({"price": "1"}), "on_book cannot read it"),
    "not an object": (record([1]), "on_book cannot read it"),
    "a price that is none": (record({"trip": "T", "price": "much"}), "InvalidOperation"),
    "an empty key": (record({"trip": ""}), "business key"),
    "a key too long": (record({"trip": LONG}), "business key"),
    "NUL in the key": (record({"trip": "a\0"}), "business key"),
    "a surrogate in the key": (record({"trip": "\ud800"}), "business key"),
    "null for a key": (record({"trip": None}), "business key"),
    "a list for a key": (record({"trip": [1]}), "business key"),
    "true for a key": (record({"trip": True}), "business key"),
    "no key for a rule": (record({}, ce_type="travel.async"), "on_async cannot read it"),
    "a key of its own too long": (
        record(1, ce_type="travel.keyless", ce_id="i" * 200, ce_source="s" * 200),
        "business key",
    ),
    "not a number": (record(raw=b"NaN", ce_type="travel.keyless"), "NaN is not a JSON number"),
    "a number without end": (record(raw=b"1" * 5000, ce_type="travel.keyless"), "not JSON"),
}


@pytest.mark.django_db
class TestMalformed:
    @pytest.mark.parametrize(("command", "reason"), MALFORMED.values(), ids=MALFORMED)
    def test_it_is_kept_with_its_reason(self, command: Record, reason: str) -> None:
        assert accept(command) == 0
        kept = RefusedCommand.objects.get()
        assert reason in kept.reason
        assert (kept.topic, kept.partition, kept.offset) == (TOPIC, 0, 0)
        assert (kept.key, kept.value) == (command.key, command.value)
        assert [(name, base64.b64decode(value)) for name, value in kept.headers] == list(
            command.headers
        )
        assert not Saga.objects.exists()

    def test_the_others_of_the_batch_are_accepted(self) -> None:
        batch = [
            Record(TOPIC, 0, offset, command.key, command.value, command.headers)
            for offset, (command, _) in enumerate(MALFORMED.values())
        ]
        good = [record({"trip": f"T-{n}"}, offset=100 + n) for n in range(3)]
        assert accept(good[0], *batch, *good[1:]) == 3
        assert RefusedCommand.objects.count() == len(batch)
        assert Saga.objects.count() == 3

    def test_redelivered_it_is_kept_once(self) -> None:
        command = record(raw=b"{")
        accept(command)
        accept(command)
        assert RefusedCommand.objects.count() == 1

    @pytest.mark.parametrize(
        "other",
        [
            record(raw=b"["),
            dataclasses.replace(record(raw=b"{"), key=None),
            dataclasses.replace(record(raw=b"{"), key=b""),
            dataclasses.replace(record(raw=b"{"), headers=(("a", b"bc"),)),
            dataclasses.replace(record(raw=b"{"), headers=(("ab", b"c"),)),
        ],
    )
    def test_another_one_at_the_same_place_is_kept_too(self, other: Record) -> None:
        """The topic was made again, and its offsets began anew."""
        first = dataclasses.replace(record(raw=b"{"), headers=(("abc", b""),))
        accept(first)
        accept(other)
        accept(other, first)
        assert RefusedCommand.objects.count() == 2

    @pytest.mark.usefixtures("saga_registry")
    def test_a_cancel_of_nothing_at_a_place_that_is_taken(self) -> None:
        cancel_on("travel.cancel", saga="travel", idempotency_key="trip")
        accept(record(raw=b"{"))
        cancel = record({"trip": "T-9"}, ce_type="travel.cancel")
        accept(cancel)
        accept(cancel)
        reasons = RefusedCommand.objects.values_list("reason", flat=True)
        assert [each for each in reasons if each == "there is no travel T-9 to cancel"]
        assert len(reasons) == 2

    def test_a_header_name_that_postgresql_could_not_store(self) -> None:
        accept(Record(TOPIC, 0, 0, b"K", b"{}", (("a\0\ud800", b"1"),)))
        ((name, _),) = RefusedCommand.objects.get().headers
        assert name == "a\\0\\ud800"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(strategies.text(), inner, max_size=3)
    ),
    max_leaves=6,
)
VALUES = (
    st.binary()
    | JSON.map(lambda value: json.dumps(value).encode())
    | JSON.map(lambda trip: json.dumps({"trip": trip}).encode())
)
HEADER_NAMES = st.sampled_from(
    ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject", "ce_time", "ce_sequence"]
)
HEADER_VALUES = st.binary(max_size=20) | st.sampled_from(
    [b"1.0", b"travel.book", b"travel.keyless", b"/tests", b"x" * 600]
)
WHOLE = st.fixed_dictionaries(
    {
        "ce_specversion": st.just(b"1.0"),
        "ce_id": strategies.text(min_size=1).map(str.encode),
        "ce_type": st.sampled_from([b"travel.book", b"travel.keyless", b"travel.async"]),
        "ce_source": strategies.text(min_size=1).map(str.encode),
    }
).map(lambda headers: tuple(headers.items()))
HEADERS = WHOLE | st.lists(
    st.tuples(HEADER_NAMES | strategies.text(), HEADER_VALUES), max_size=8
).map(tuple)


@pytest.mark.django_db
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.tuples(st.none() | st.binary(), st.none() | VALUES, HEADERS), max_size=4))
def test_no_record_stops_the_consumer(fuzz: list[tuple[Any, Any, Any]]) -> None:
    """Each becomes a saga, meets one, or is kept; and the good one beside them is accepted."""
    RefusedCommand.objects.all().delete()
    Saga.objects.all().delete()
    InboxMessage.objects.all().delete()
    records = [
        Record(TOPIC, 0, offset, key, value, headers)
        for offset, (key, value, headers) in enumerate(fuzz)
    ]
    accept(record({"trip": "good one"}, offset=99), *records)
    assert Saga.objects.filter(key="good one").exists()
    for saga in Saga.objects.all():
        # What PostgreSQL would refuse, SQLite takes.
        assert "\0" not in f"{saga.key}{saga.input}{saga.correlation_id}{saga.traceparent}"
        assert len(saga.key) <= 255
    for kept in RefusedCommand.objects.all():
        assert "\0" not in f"{kept.reason}{kept.headers}"
    for seen in InboxMessage.objects.all():
        assert "\0" not in f"{seen.source}{seen.message_id}"
        assert len(seen.message_id) <= 255


@pytest.mark.django_db(transaction=True)
class TestTheConsumer:
    @pytest.fixture
    def broker(self) -> MemoryBroker:
        return MemoryBroker()

    def publish(self, broker: MemoryBroker, *commands: Record) -> None:
        publisher = broker.publisher()
        for token, command in enumerate(commands):
            publisher.publish(
                Message(TOPIC, "K", command.value or b"", command.headers), token=token
            )

    def test_it_accepts_and_commits(self, broker: MemoryBroker) -> None:
        consumer = SagaConsumer(broker, topics=[TOPIC], group="sagas")
        with in_thread(consumer.run):
            self.publish(broker, record({"trip": "T-1"}), record(raw=b"{"))
            until(lambda: Saga.objects.exists() and RefusedCommand.objects.exists())
        assert not broker.subscribe([TOPIC], group="sagas").receive(timeout=0, limit=9)

    def test_what_it_could_not_store_comes_again(
        self, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = accepting.accept
        failures = iter([1, 2])

        def failing(*args: Any, **kwargs: Any) -> int:
            if next(failures, None):
                raise OperationalError("server closed the connection")
            return real(*args, **kwargs)

        monkeypatch.setattr(accepting, "accept", failing)
        quick = Backoff(first=0.001, longest=0.01)
        with in_thread(SagaConsumer(broker, topics=[TOPIC], group="sagas", backoff=quick).run):
            self.publish(broker, record({"trip": "T-1"}))
            until(Saga.objects.exists)
        assert InboxMessage.objects.count() == 1
