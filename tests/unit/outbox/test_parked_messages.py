"""What a person does about parked messages, by way of `manage.py outbox`."""

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from brokers import Message
from outbox import enqueue, reports
from outbox.keys import lock_key, try_lock_keys
from outbox.lanes import lane_of
from outbox.models import OutboxMessage, ParkedIntervention, ParkedMessage
from outbox.murmur2 import murmur2
from relay.assembly import open_store
from relay.lanes import EveryLane, Lanes, LeasedLanes
from relay.parking import ParkedKeys
from relay.store import Row
from tests.unit.relay.scripted import Kafka, drain, make_relay, put
from tests.unit.waiting import TIMEOUT, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)


def outbox(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    call_command("outbox", *arguments)
    return capsys.readouterr().out


def refusing(payload: bytes) -> Kafka:
    """A broker that takes all but this, and no batch with this in it."""

    def judge(batch: Sequence[Message]) -> list[str]:
        is_bad = any(message.value == payload for message in batch)
        return ["refuse" if is_bad else "ok"] * len(batch)

    return Kafka(judge)


@pytest.fixture
def ids() -> list[int]:
    """Of the key `bad` the second and what followed is parked."""
    ids = put("bad", "bad", "good", "bad")
    drain(refusing(b"1"))
    assert list(ParkedMessage.objects.values_list("id", flat=True)) == [ids[1], ids[3]]
    return ids


def sent(broker: Kafka) -> list[tuple[Any, int]]:
    return [(json.loads(m.value), int(dict(m.headers)["ce_sequence"])) for m in broker.accepted]


def test_status(ids: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    put("other")

    def status() -> dict[str, Any]:
        if connection.vendor == "postgresql":  # whose statistics come late, even other tests'
            connection.cursor().execute("ANALYZE outbox_message")
        return cast("dict[str, Any]", json.loads(outbox("status", "--json", capsys=capsys)))

    until(lambda: status()["waiting"] == 1)
    counted = status()
    assert (counted["parked_messages"], counted["parked_keys"]) == (2, 1)
    assert counted["oldest_seconds"] >= 0
    lines = outbox("status", capsys=capsys)
    assert "waiting          about " in lines
    assert "parked_keys      1\n" in lines


def test_status_counts_no_rows_of_the_outbox(ids: list[int]) -> None:
    """On a backlog that takes seconds."""
    with CaptureQueriesContext(connection) as said:
        reports.status()
    counts = [each["sql"] for each in said if "COUNT(*)" in each["sql"].upper()]
    counts_of_the_outbox = [sql for sql in counts if '"outbox_message"' in sql]
    assert counts_of_the_outbox == [] or connection.vendor == "sqlite"


def test_parked(ids: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = json.loads(outbox("parked", "--json", capsys=capsys))
    assert (row["key"], row["messages"], row["first_id"]) == ("bad", 2, ids[1])
    assert row["reason"] == "too large"
    assert "too large" in outbox("parked", capsys=capsys)


def test_retry_sends_in_order_with_the_original_ids(
    ids: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    later = put("bad")
    said = outbox("retry", "bad", "--why", "the limit is raised", capsys=capsys)
    assert said == "2 message(s) of the key are back in the outbox\n"
    broker = Kafka()
    drain(broker)
    wanted = [(1, ids[1]), (3, ids[3]), (0, later[0])]
    assert sent(broker) == [(payload, id_) for payload, id_ in wanted]
    assert not ParkedMessage.objects.exists()
    row = ParkedIntervention.objects.get()
    assert (row.action, row.message, row.why) == ("retry", ids[1], "the limit is raised")


def test_retry_where_the_cause_is_still_there_parks_again(
    ids: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    outbox("retry", str(ids[3]), "--why", "perhaps", capsys=capsys)
    drain(refusing(b"1"))
    assert list(ParkedMessage.objects.values_list("id", flat=True)) == [ids[1], ids[3]]


@pytest.fixture
def _two_topics() -> None:
    """Parked: three keys of shop.events, one of them of another topic too, and one of only that."""
    put("a", "b", "b", "c", "d")
    OutboxMessage.objects.filter(key="d").update(topic="shop.other")
    last = OutboxMessage.objects.filter(key="b").last()
    assert last is not None
    OutboxMessage.objects.filter(id=last.id).update(topic="shop.other")
    drain(Kafka(lambda batch: ["refuse"] * len(batch)))
    assert ParkedMessage.objects.count() == 5


@pytest.mark.usefixtures("_two_topics")
def test_retry_a_topic(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--topic", "shop.events", "--why", "the topic is there", "--by", "ann")
    said = outbox("retry", *arguments, capsys=capsys)
    assert said == "4 message(s) of 3 key(s) are back in the outbox\n"
    assert list(ParkedMessage.objects.values_list("key", flat=True)) == ["d"]
    done = ParkedIntervention.objects.values_list("action", "key", "who", "why")
    assert list(done) == [("retry", key, "ann", "the topic is there") for key in "abc"]
    broker = Kafka()
    drain(broker)
    assert broker.order_of("b") == [1, 2]


@pytest.mark.usefixtures("_two_topics")
def test_retry_all(capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads(outbox("retry", "--all", "--why", "x", "--json", capsys=capsys))
    assert said == {"keys": 4, "put_back": 5}
    assert not ParkedMessage.objects.exists()
    said = json.loads(outbox("retry", "--all", "--why", "x", "--json", capsys=capsys))
    assert said == {"keys": 0, "put_back": 0}
    assert ParkedIntervention.objects.count() == 4


def test_skip_sends_the_others(ids: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    outbox("skip", str(ids[1]), "--why", "nobody needs it", "--by", "ann", capsys=capsys)
    broker = Kafka()
    drain(broker)
    assert [payload for payload, _ in sent(broker)] == [3]
    row = ParkedIntervention.objects.get()
    assert (row.action, row.who, bytes(row.payload_before or b"")) == ("skip", "ann", b"1")


def test_what_a_skipped_message_was_is_kept(
    ids: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    ParkedMessage.objects.filter(id=ids[1]).update(headers={"shop": "7"})
    was = ParkedMessage.objects.get(id=ids[1])
    outbox("skip", str(ids[1]), "--why", "nobody needs it", capsys=capsys)
    (logged,) = json.loads(outbox("log", "--json", capsys=capsys))
    before = logged["before"]
    assert (before["topic"], before["type"], before["headers"]) == (
        was.topic,
        was.type,
        {"shop": "7"},
    )
    assert (before["ce_id"], before["reason"]) == (str(was.message_id), "too large")
    assert str(was.message_id) in outbox("log", capsys=capsys)


def test_an_id_that_is_also_the_key_of_others(
    ids: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Order ids may be digits."""
    same = str(ids[1])
    put(same)
    drain(refusing(b"0"))
    with pytest.raises(CommandError, match=f"say --key {same} or --message {same}"):
        outbox("retry", same, "--why", "x", capsys=capsys)
    assert not ParkedIntervention.objects.exists()
    outbox("retry", "--key", same, "--why", "x", capsys=capsys)
    assert set(ParkedMessage.objects.values_list("key", flat=True)) == {"bad"}
    outbox("retry", "--message", same, "--why", "x", capsys=capsys)
    assert not ParkedMessage.objects.exists()


def test_edit(ids: list[int], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text('{"smaller": "ü"}')
    arguments = ("--payload", str(file), "--topic", "shop.other", "--why", "was too large")
    outbox("edit", str(ids[1]), *arguments, capsys=capsys)
    broker = refusing(b"1")
    drain(broker)
    assert [payload for payload, _ in sent(broker)] == [{"smaller": "ü"}, 3]
    assert [message.topic for message in broker.accepted] == ["shop.other", "shop.events"]
    (logged,) = json.loads(outbox("log", "--json", capsys=capsys))
    assert (logged["action"], logged["message"], logged["key"]) == ("edit", ids[1], "bad")
    assert logged["before"]["topic"] == "shop.events"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["retry", "nobody", "--why", "x"], "there is no parked message nobody"),
        (["skip", "999999", "--why", "x"], "there is no parked message 999999"),
        (["edit", "ID", "--why", "x"], "say what is to change"),
        (["edit", "ID", "--payload", "FILE", "--why", "x"], "the payload is not JSON"),
        (["edit", "ID", "--payload", "LATIN", "--why", "x"], "not JSON in UTF-8"),
        (["edit", "ID", "--payload", "TWICE", "--why", "x"], "has the name 'a' twice"),
        (["edit", "ID", "--payload", "/nowhere", "--why", "x"], "No such file"),
        (["edit", "ID", "--topic", "t" * 250, "--why", "x"], "no topic name"),
        (["edit", "ID", "--topic", "", "--why", "x"], "no topic name"),
        (["retry", "\udcff", "--why", "x"], "surrogates not allowed"),
        (["retry", "9" * 400, "--why", "x"], "there is no parked message 999"),
        (["retry", "--why", "x"], "one of the arguments"),
    ],
)
def test_what_cannot_be_done(
    ids: list[int], arguments: list[str], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "payload.json"
    file.write_text("{NaN")
    latin = tmp_path / "latin.json"
    latin.write_bytes('"ü"'.encode("latin-1"))
    twice = tmp_path / "twice.json"
    twice.write_text('{"a": 1, "a": 2}')
    known = {"ID": str(ids[1]), "FILE": str(file), "LATIN": str(latin), "TWICE": str(twice)}
    with pytest.raises(CommandError, match=said):
        call_command("outbox", *[known.get(each, each) for each in arguments])
    assert ParkedMessage.objects.count() == 2
    assert not ParkedIntervention.objects.exists()


@pytest.mark.parametrize("why", ["", " ", "\t\n", "\u200b"])
@pytest.mark.parametrize(
    "arguments",
    [["retry", "bad"], ["retry", "--all"], ["edit", "ID", "--topic", "t"], ["skip", "ID"]],
    ids=lambda arguments: arguments[0],
)
def test_without_a_reason_nothing_is_done(ids: list[int], arguments: list[str], why: str) -> None:
    command = [str(ids[1]) if each == "ID" else each for each in arguments]
    with pytest.raises(CommandError, match="say who does it, and why: neither may be blank"):
        call_command("outbox", *command, "--why", why)
    with pytest.raises(CommandError, match="neither may be blank"):
        call_command("outbox", *command, "--why", "because", "--by", why)
    assert ParkedMessage.objects.count() == 2
    assert not ParkedIntervention.objects.exists()


@pytest.mark.on_postgresql
def test_the_relay_parks_nothing_behind_what_is_being_put_back(ids: list[int]) -> None:
    """It only tries the key's lock; the row stays in the outbox, and follows what was put back."""
    later = put("bad")
    lane = OutboxMessage.objects.get(id=later[0]).lane
    locked: list[bool] = []

    def hold(stop: Any) -> None:
        with transaction.atomic():
            lock_key(murmur2(b"bad"))
            locked.append(True)
            stop.wait()
        connections.close_all()

    lanes = LeasedLanes("a")
    lanes.tend(busy=())
    with in_thread(hold):
        until(lambda: locked)
        assert open_store("a").park({"bad": lane}, reasons={}, epochs=lanes.held).total() == 0
    assert open_store("a").park({"bad": lane}, reasons={}, epochs=lanes.held).total() == 1
    lanes.release()


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    """Of a relay named `a`."""
    lanes = LeasedLanes("a") if connection.vendor == "postgresql" else EveryLane()
    lanes.tend(busy=())
    yield lanes
    lanes.release()


def head(lanes: Lanes) -> list[Row]:
    """What the relay named `a` reads."""
    pending = open_store("a").head(
        [*lanes.held], epochs=lanes.held, in_flight=(), limit=10, lane_limit=10
    )
    return pending.result()


def test_what_is_put_back_after_a_read_goes_first(ids: list[int], lanes: Lanes) -> None:
    later = put("bad")
    parked = ParkedKeys(open_store("a"))
    parked.learn(lanes.held)
    stale = head(lanes)
    call_command("outbox", "retry", "bad", "--why", "the limit is raised")
    waiting = parked.among(stale)
    assert set(waiting) == {row.key for row in stale} == {"bad"}
    parked.park_waiting(waiting, held=lanes.held, in_flight=())
    fresh = head(lanes)
    assert [row.id for row in fresh] == [ids[1], ids[3], *later]
    assert parked.among(fresh) == {}


def test_nothing_is_parked_behind_what_has_been_put_back(ids: list[int], lanes: Lanes) -> None:
    lane = ParkedMessage.objects.get(id=ids[1]).lane
    call_command("outbox", "retry", "bad", "--why", "the limit is raised")
    assert open_store("a").park({"bad": lane}, reasons={}, epochs=lanes.held).total() == 0
    assert OutboxMessage.objects.count() == 2


@pytest.mark.on_postgresql
def test_while_a_writer_holds_the_keys_lock_the_other_keys_of_its_lane_flow() -> None:
    """The relay cannot park it yet, nor send what follows it."""
    put("bad", "bad")
    lane = lane_of("bad")
    beside = next(key for key in map(str, range(9999)) if lane_of(key) == lane)
    locked, alone = threading.Event(), threading.Event()

    def hold(stop: threading.Event) -> None:
        with transaction.atomic():
            lock_key(murmur2(b"bad"))
            locked.set()
            stop.wait()
        connections.close_all()

    def judge(batch: Sequence[Message]) -> list[str]:
        if {message.key for message in batch} == {"bad"} and len(batch) == 1:
            alone.set()
        return ["refuse" if message.key == "bad" else "ok" for message in batch]

    broker = Kafka(judge)
    with in_thread(hold):
        assert locked.wait(TIMEOUT)
        with in_thread(make_relay(broker).run):
            assert alone.wait(TIMEOUT)
            put(*[beside] * 3)
            until(lambda: broker.order_of(beside) == [0, 1, 2])
            assert not ParkedMessage.objects.exists()
    drain(broker)
    assert broker.order_of("bad") == []
    assert ParkedMessage.objects.filter(key="bad").count() == 2


def test_the_lock_is_that_of_enqueue() -> None:
    with transaction.atomic():
        enqueue(topic="t", key="K", type="x", payload=1)
        assert try_lock_keys([murmur2(b"K")]) == {murmur2(b"K")}
