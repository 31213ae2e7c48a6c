import json
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from cloudevents.core.formats.json import JSONFormat
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from brokers import (
    BrokerUnavailable,
    Failed,
    Message,
    QueueFull,
    Record,
    Refused,
)
from brokers.memory import MemoryBroker
from outbox import NewMessage, enqueue, enqueue_many
from outbox.models import LANES, OutboxMessage, ParkedMessage
from outbox.murmur2 import murmur2
from relay.assembly import open_store
from relay.resting_lanes import RestingLanes
from saga_runtime.correlation import Correlation, correlated
from tests.unit.relay.scripted import (
    QUICK,
    SOURCE,
    Kafka,
    SomeLanes,
    drain,
    left,
    make_relay,
    parked,
    put,
)
from tests.unit.waiting import in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class TestPublishing:
    def test_in_the_order_of_ids(self) -> None:
        put(*"abcab" * 20)
        broker = Kafka()
        assert drain(broker, batch_size=7) == 100
        for key in "abc":
            assert broker.order_of(key) == [n for n in range(100) if "abcab"[n % 5] == key]
        assert left() == 0

    def test_as_cloudevents(self) -> None:
        with transaction.atomic(), correlated(Correlation("trace-1", TRACEPARENT)):
            row = enqueue(
                topic="shop.events",
                key="K-1",
                type="shop.sold",
                payload={"amount": "9.99"},
                headers={"x-tenant": "green"},
            )
        broker = Kafka()
        drain(broker)
        (message,) = broker.accepted
        assert (message.topic, message.key, message.value) == (
            "shop.events",
            "K-1",
            b'{"amount":"9.99"}',
        )
        headers = dict(message.headers)
        assert datetime.fromisoformat(headers.pop("ce_time").decode()) == row.created_at
        assert headers == {
            "ce_specversion": b"1.0",
            "ce_id": str(row.message_id).encode(),
            "ce_type": b"shop.sold",
            "ce_source": b"/tests",
            "ce_subject": b"K-1",
            "ce_sequence": b"%020d" % row.id,
            "content-type": b"application/json",
            "x-correlation-id": b"trace-1",
            "traceparent": TRACEPARENT.encode(),
            "x-tenant": b"green",
        }

    @pytest.mark.parametrize("microsecond", [0, 1, 500_000, 848_640, 999_999])
    def test_the_time_is_rfc_3339(self, microsecond: int) -> None:
        """PostgreSQL leaves zeros at the end of the second's fraction out, SQLite does not."""
        [id_] = put("K-1")
        at = datetime(2026, 1, 2, 3, 4, 5, microsecond, tzinfo=UTC)
        OutboxMessage.objects.filter(id=id_).update(created_at=at)
        broker = Kafka()
        drain(broker)
        text = dict(broker.accepted[0].headers)["ce_time"].decode()
        assert re.fullmatch(r"2026-01-02T03:04:05(\.\d{1,6})?\+00:00", text)
        assert datetime.fromisoformat(text) == at

    def test_an_applications_headers_displace_none_of_ours(self) -> None:
        """A row may have been written before that was refused, or by hand. An empty one is sent."""
        [id_] = put("K-1")
        theirs = ("Content-Type", "content-type", "CE_ID", "ce_type", "traceparent")
        headers = {"x-empty": "", **dict.fromkeys((*theirs, "X-Correlation-Id"), "theirs")}
        OutboxMessage.objects.filter(id=id_).update(headers=headers)
        broker = Kafka()
        drain(broker)
        (message,) = broker.accepted
        names = [name for name, _ in message.headers]
        assert len(names) == len({name.lower() for name in names})
        assert dict(message.headers)["content-type"] == b"application/json"
        assert dict(message.headers)["x-empty"] == b""
        assert b"theirs" not in {value for _, value in message.headers}

    def test_the_callers_tracestate_travels_with_our_traceparent(self) -> None:
        """Nothing of ours sets it, so that whoever has one may hand it over."""
        state = "vendor=00f067aa0ba902b7"
        with transaction.atomic(), correlated(Correlation("trace-1", TRACEPARENT)):
            enqueue(topic="t", key="K-1", type="a", payload={}, headers={"tracestate": state})
        broker = Kafka()
        drain(broker)
        (message,) = broker.accepted
        headers = dict(message.headers)
        assert headers["tracestate"] == state.encode()
        assert headers["traceparent"] == TRACEPARENT.encode()

    def test_as_cloudevents_that_their_own_library_reads(self) -> None:
        put("K-1")
        broker = Kafka()
        drain(broker)
        (message,) = broker.accepted
        event = from_binary_event(
            KafkaMessage(
                headers=dict(message.headers), key=message.key.encode(), value=message.value
            ),
            JSONFormat(),
        )
        assert (event.get_type(), event.get_source()) == ("shop.sold", SOURCE)
        assert event.get_extension("sequence") == dict(message.headers)["ce_sequence"].decode()

    def test_what_arrives_while_it_runs(self) -> None:
        broker = Kafka()
        with in_thread(make_relay(broker).run):
            put("a")
            until(lambda: left() == 0)
            put("b")
            until(lambda: left() == 0)
        assert [message.key for message in broker.accepted] == ["a", "b"]
        assert broker.closed == 1

    def test_a_row_that_commits_late_is_not_lost(self) -> None:
        """Its id was drawn first, by a transaction that took longer."""
        late, prompt = put("late", "prompt")
        row = OutboxMessage.objects.get(id=late)
        row.delete()
        broker = Kafka()
        with in_thread(make_relay(broker).run):
            until(lambda: left() == 0)
            row.id = late
            row.save(force_insert=True)
            until(lambda: left() == 0)
        sequences = [int(dict(message.headers)["ce_sequence"]) for message in broker.accepted]
        assert sequences == [prompt, late]


class TestDeleting:
    def test_only_when_the_consumer_has_committed(self) -> None:
        put("a", "b", topic="shop.commands")
        broker = MemoryBroker()
        received: list[Record] = []
        with in_thread(make_relay(broker).run):
            subscription = broker.subscribe(["shop.commands"], group="g")
            while len(received) < 2:
                received += subscription.receive(timeout=1, limit=10)
            assert left() == 2
            subscription.commit(received[:1])
            until(lambda: left() == 1)
            subscription.commit(received)
            until(lambda: left() == 0)

    def test_what_nobody_has_committed_is_kept_and_sent_again(self) -> None:
        put("a", topic="shop.commands")
        relay = make_relay(MemoryBroker(), timing=replace(QUICK, flush_timeout=0.1))
        with in_thread(relay.run):
            until(lambda: relay._cycle.in_flight.rows)
        assert left() == 1
        other = MemoryBroker()
        subscription = other.subscribe(["shop.commands"], group="g")
        with in_thread(make_relay(other).run):
            (record,) = subscription.receive(timeout=10, limit=10)
            subscription.commit([record])
            until(lambda: left() == 0)

    def test_stopping_waits_for_the_reports_of_what_is_in_flight(self) -> None:
        put(*"abcd", topic="shop.commands")
        broker = MemoryBroker()
        relay = make_relay(broker)
        subscription = broker.subscribe(["shop.commands"], group="g")
        with in_thread(relay.run) as stop:
            records: list[Record] = []
            while len(records) < 4:
                records += subscription.receive(timeout=1, limit=10)
            stop.set()
            subscription.commit(records)
        assert left() == 0
        assert relay.published == 4


class TestTheBrokerIsAway:
    def test_nothing_is_parked_and_the_order_is_kept(self) -> None:
        put(*"abcab" * 4)
        broker = Kafka()
        broker.away = True
        with in_thread(make_relay(broker, batch_size=3).run):
            put("a")
            broker.away = False
            until(lambda: left() == 0)
        assert not ParkedMessage.objects.exists()
        assert broker.order_of("a") == [0, 3, 5, 8, 10, 13, 15, 18, 0]

    def test_failures_are_sent_again_in_order(self) -> None:
        """From the first failure on, nothing of what is in flight arrives, for a while."""
        rounds = iter([3, 0, 0, 1, 5])

        def judge(batch: Sequence[Message]) -> list[str]:
            good = next(rounds, len(batch))
            return ["ok"] * min(good, len(batch)) + ["away"] * (len(batch) - good)

        put(*"ab" * 10)
        broker = Kafka(judge)
        assert drain(broker, batch_size=8) == 20
        assert broker.order_of("a") == list(range(0, 20, 2))
        assert broker.order_of("b") == list(range(1, 20, 2))
        assert not ParkedMessage.objects.exists()

    def test_nothing_is_sent_until_all_reports_are_in(self) -> None:
        """Sent again at once, the first would arrive before the second has failed."""
        failing: list[str] = []

        def judge(batch: Sequence[Message]) -> list[str]:
            """All that is under way at the first look fails, one after the other."""
            if not failing:
                failing.extend(["ok"] + ["away"] * (len(batch) + len(broker._queue)))
            return [failing.pop() if len(failing) > 1 else "ok" for _ in batch]

        put(*"aaaa")
        broker = Kafka(judge)
        broker.slow = True
        drain(broker, batch_size=2)
        assert [json.loads(message.value) for message in broker.accepted] == [0, 1, 2, 3]

    def test_a_lane_waits_for_the_last_report_of_what_is_in_flight(self) -> None:
        ids = put("a", "a", "a")
        broker = Kafka()
        broker.silent = True
        relay = make_relay(broker)
        relay._cycle.run(wait=0.005)
        sent = broker._queue
        for failed in ids:
            assert [token for token, _ in sent] == ids
            broker._given_up = [Failed(failed, "away")]
            relay._cycle.run(wait=0.005)
        relay._cycle.run(wait=0.005)
        assert [token for token, _ in sent] == [*ids, *ids]
        relay._cycle.close()

    def test_it_may_go_away_within_a_batch(self) -> None:
        put(*"aaaaaa")
        broker = Kafka()
        published = broker.publish
        failing = [2, 4]

        def publish(message: Message, *, token: int) -> bool:
            if json.loads(message.value) in failing:
                failing.remove(json.loads(message.value))
                raise BrokerUnavailable("nobody there")
            return published(message, token=token)

        broker.publish = publish  # type: ignore[method-assign]
        assert drain(broker) == 6
        assert broker.order_of("a") == [0, 1, 2, 3, 4, 5]

    def test_stopping_does_not_wait_for_it(self) -> None:
        put("a")
        broker = Kafka(lambda batch: ["away"] * len(batch))
        with in_thread(make_relay(broker).run):
            pass
        assert left() == 1


class TestAMessageThatTheBrokerDoesNotTakeNow:
    def test_its_lane_waits_and_the_others_flow(self, caplog: pytest.LogCaptureFixture) -> None:
        """And the key's order is kept, when its time has come."""
        verdicts = {"bad": "not now"}

        def judge(batch: Sequence[Message]) -> list[str]:
            return [verdicts.get(message.key, "ok") for message in batch]

        put("a", "bad", "b", "bad")
        broker = Kafka(judge)
        relay = make_relay(broker)
        with in_thread(relay.run):
            until(lambda: left() == 2)
            put("a", "b")
            until(lambda: left() == 2)
            verdicts.clear()
            until(lambda: left() == 0)
        assert broker.order_of("bad") == [1, 3]
        assert relay.outages["broker"] == 0
        assert not ParkedMessage.objects.exists()
        assert f"lane {murmur2(b'bad') % LANES} waits 0.3 s: not now" in caplog.text

    def test_what_time_does_not_heal_parks_nothing_and_is_named(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Such as a clock that is wrong: every message of every key is refused for it."""
        verdict = "set the clock"
        put(*"abcab")
        broker = Kafka(lambda batch: [verdict, *["given up"] * (len(batch) - 1)])
        relay = make_relay(broker)
        with in_thread(relay.run):
            until(lambda: "set the clock" in caplog.text)
            put("c")
            broker.judge = lambda batch: ["ok"] * len(batch)
            until(lambda: left() == 0)
        assert not ParkedMessage.objects.exists()
        assert [broker.order_of(key) for key in "abc"] == [[0, 3], [1, 4], [2, 0]]
        assert relay.outages["broker"] == 0
        beginning = f"the broker {broker.name} answers, but cannot be used like this, trying on: "
        assert beginning + verdict in caplog.text
        assert "does not answer" not in caplog.text

    def test_rests_grow_while_they_follow_each_other(self) -> None:
        now = 100.0
        rests = RestingLanes(clock=lambda: now)
        for seconds in (0.3, 0.6, 1.2):
            rests.add(3, "not now")
            assert rests.lanes == {3}
            now += seconds
            assert rests.lanes == set()
        now += 1.3
        rests.add(3, "not now")
        now += 0.5
        assert rests.lanes == set()


def test_a_full_queue_is_no_outage() -> None:
    class Narrow(Kafka):
        def publish(self, message: Message, *, token: int) -> bool:
            if len(self._queue) == 10:
                raise QueueFull("10 messages wait already")
            return super().publish(message, token=token)

    put(*"abcde" * 20)
    relay = make_relay(broker := Narrow())
    assert relay.drain(threading.Event()) == 100
    assert broker.order_of("c") == list(range(2, 100, 5))
    assert relay.outages["broker"] == 0


@pytest.mark.on_sqlite  # where no delete asks the database whose the lanes are
class TestLosingALane:
    def test_what_is_queued_is_purged_and_overtaken_by_nothing(self) -> None:
        """Of the lanes that stay, too, the queue is gone: their next messages have to wait for
        that."""
        put("stays", "goes", "stays")
        lanes = SomeLanes()
        broker = Kafka()
        broker.silent = True
        relay = make_relay(broker, lanes=lanes)
        relay._cycle.run(wait=0.005)
        assert len(broker._queue) == 3
        put("stays", "goes", "stays")
        lanes.taken_by_others = {murmur2(b"goes") % LANES}
        relay._cycle.run(wait=0.005)
        broker.silent = False
        with in_thread(relay.run):
            until(lambda: left() == 2)
        assert broker.order_of("stays") == [0, 2, 0, 2]
        assert broker.order_of("goes") == []


class TestRefusedMessages:
    def test_its_key_is_parked_in_order_and_the_others_flow(self) -> None:
        with transaction.atomic():
            enqueue_many(
                NewMessage(topic="shop.events", key=key, type="x", payload=payload)
                for key, payload in [
                    ("bad", 1),
                    ("good", 1),
                    ("bad", "x" * 2000),
                    ("bad", 2),
                    ("good", 2),
                    ("bad", 3),
                ]
            )
        broker = MemoryBroker(max_message_bytes=1500)
        audit = broker.subscribe(["shop.events"], group="audit")
        relay = make_relay(broker)
        with in_thread(relay.run):
            records: list[Record] = []
            while len(records) < 3:
                records += audit.receive(timeout=10, limit=10)
                audit.commit(records)
            until(lambda: left() == 0)
        first, *rest = ParkedMessage.objects.all()
        assert first.reason.startswith("message of 2")
        assert {row.reason for row in rest} == {"waits behind a parked message of its key"}
        assert parked() == [("bad", "x" * 2000), ("bad", 2), ("bad", 3)]
        assert [json.loads(r.value or b"") for r in records if r.key == b"bad"] == [1]
        assert [json.loads(r.value or b"") for r in records if r.key == b"good"] == [1, 2]

    def test_later_messages_of_a_parked_key_wait_behind_it(self) -> None:
        def judge(batch: Sequence[Message]) -> list[str]:
            return ["refuse" if message.key == "bad" else "ok" for message in batch]

        put("bad")
        broker = Kafka(judge)
        drain(broker)
        broker.judge = lambda batch: ["ok"] * len(batch)
        ids = put("bad", "good", "bad")
        drain(broker)
        assert [message.key for message in broker.accepted] == ["good"]
        assert list(ParkedMessage.objects.values_list("id", flat=True))[1:] == [ids[0], ids[2]]
        assert parked() == [("bad", 0), ("bad", 0), ("bad", 2)]

    def test_more_parked_rows_than_a_batch_hide_no_good_row(self) -> None:
        put("bad")
        broker = Kafka(lambda batch: ["refuse"] * len(batch))
        drain(broker)
        broker.judge = lambda batch: ["ok"] * len(batch)
        put(*["bad"] * 50, "good")
        drain(broker, batch_size=5)
        assert [message.key for message in broker.accepted] == ["good"]

    @pytest.mark.parametrize("headers", [{"x-number": 5}, ["x"], {"x-list": ["x"]}])
    def test_one_that_cannot_be_written_as_a_message(self, headers: object) -> None:
        """`enqueue()` makes none such; whoever else writes into the table may."""
        _, poison, *_ = put("bad", "bad", "good", "bad", "good")
        OutboxMessage.objects.filter(id=poison).update(headers=headers)
        broker = Kafka()
        drain(broker)
        assert (broker.order_of("bad"), broker.order_of("good")) == ([0], [2, 4])
        assert parked() == [("bad", 1), ("bad", 3)]
        first = ParkedMessage.objects.all()[0]
        assert first.reason.startswith("it cannot be written as a message: ")

    def test_a_refused_batch_judges_no_message(self) -> None:
        def judge(batch: Sequence[Message]) -> list[str]:
            return ["refuse" if len(batch) > 1 else "ok"] * len(batch)

        put(*"abcab")
        broker = Kafka(judge)
        assert drain(broker) == 5
        assert broker.order_of("a") == [0, 3]
        assert broker.order_of("b") == [1, 4]
        assert broker.order_of("c") == [2]
        assert not ParkedMessage.objects.exists()

    def test_of_a_refused_batch_the_bad_one_is_found(self) -> None:
        def judge(batch: Sequence[Message]) -> list[str]:
            bad = any(message.value == b"2" for message in batch)
            return ["refuse" if bad else "ok"] * len(batch)

        put(*"abcacb")
        broker = Kafka(judge)
        drain(broker)
        assert parked() == [("c", 2), ("c", 4)]
        assert broker.order_of("a") == [0, 3]
        assert broker.order_of("b") == [1, 5]

    def test_what_failed_beside_a_refusal_is_not_overtaken(self) -> None:
        """The first of the key failed, the second was refused with its batch."""
        rounds = iter([["away", "refuse"]])

        def judge(batch: Sequence[Message]) -> list[str]:
            return next(rounds, ["ok"] * len(batch))

        put("a", "a")
        broker = Kafka(judge)
        drain(broker)
        assert broker.order_of("a") == [0, 1]

    def test_what_is_refused_unsent_is_parked_at_once(self) -> None:
        """And what was under way beside it is not sent again."""
        batches: list[Sequence[Message]] = []

        def judge(batch: Sequence[Message]) -> list[str]:
            batches.append(batch)
            return ["unsent" if message.key == "bad" else "ok" for message in batch]

        put("a", "bad", "b", "a")
        drain(Kafka(judge))
        (keys,) = (sorted(message.key for message in batch) for batch in batches)
        assert keys == ["a", "a", "b", "bad"]
        assert parked() == [("bad", 1)]

    def test_what_is_refused_before_it_is_queued_is_overtaken_by_nothing(self) -> None:
        put("a", "a", "b", "a")
        broker = Kafka()
        published = broker.publish

        def publish(message: Message, *, token: int) -> bool:
            if message.value == b"1":
                broker._given_up.append(Refused(token, "no such topic", unsent=True))
                return False
            return published(message, token=token)

        broker.publish = publish  # type: ignore[method-assign]
        drain(broker)
        assert (broker.order_of("a"), broker.order_of("b")) == ([0], [2])
        assert parked() == [("a", 1), ("a", 3)]

    def test_what_is_refused_unsent_overtakes_no_earlier_one_that_failed(self) -> None:
        rounds = iter([["away", "unsent"], ["ok", "unsent"]])
        put("a", "a")
        broker = Kafka(lambda _: next(rounds))
        drain(broker)
        assert broker.order_of("a") == [0]
        assert parked() == [("a", 1)]

    def test_an_outage_beside_what_is_refused_unsent_is_one(self) -> None:
        rounds = iter([["unsent", "away"]])
        put("a", "b")
        relay = make_relay(Kafka(lambda batch: next(rounds, ["ok"] * len(batch))))
        assert relay.drain(threading.Event()) == 1
        assert relay.outages["broker"] == 1

    def test_many_are_parked_in_a_few_statements(self) -> None:
        def queries(count: int) -> int:
            put(*(f"{count}-{number}" for number in range(count)))
            with CaptureQueriesContext(connection) as captured:
                drain(Kafka(lambda batch: ["unsent"] * len(batch)))
            return len(captured)

        assert queries(300) <= queries(3) + 10
        assert ParkedMessage.objects.count() == 303

    def test_what_failed_with_a_refusal_is_no_outage(self) -> None:
        rounds = iter([["refuse", "given up"]])
        put("a", "b")
        relay = make_relay(Kafka(lambda batch: next(rounds, ["ok"] * len(batch))))
        assert relay.drain(threading.Event()) == 2
        assert relay.outages["broker"] == 0

    def test_a_refusal_that_comes_while_there_is_more_to_read(self) -> None:
        """It is sent again alone, and its report comes only to who waits for it: as in a
        transaction, which is committed then."""
        put(*"abcd")
        broker = Kafka()
        published = broker.publish
        refusals = ["too large"]

        def publish(message: Message, *, token: int) -> bool:
            if message.key == "a" and refusals:
                broker._given_up.append(Refused(token, refusals.pop()))
                return True
            return published(message, token=token)

        broker.publish = publish  # type: ignore[method-assign]
        assert drain(broker, batch_size=1) == 4
        assert not ParkedMessage.objects.exists()

    def test_a_suspect_is_sent_once_and_alone(self) -> None:
        rounds = iter([["refuse"]] * 3)
        put(*"abc")
        broker = Kafka(lambda batch: next(rounds, ["ok"] * len(batch)))
        broker.slow = True
        drain(broker)
        assert sorted(message.key for message in broker.accepted) == ["a", "b", "c"]

    def test_the_broker_goes_away_while_suspects_are_judged(self) -> None:
        rounds = iter([["refuse"] * 3, ["away"], ["ok"], ["away"], ["refuse"], ["ok"]])

        def judge(batch: Sequence[Message]) -> list[str]:
            return next(rounds)

        put(*"aba")
        broker = Kafka(judge)
        drain(broker)
        assert [(m.key, json.loads(m.value)) for m in broker.accepted] == [("a", 0), ("a", 2)]
        assert parked() == [("b", 1)]

    def test_stopping_while_suspects_are_judged(self) -> None:
        def judge(batch: Sequence[Message]) -> list[str]:
            return ["refuse"] * len(batch) if len(batch) > 1 else ["away"]

        put(*"abc")
        relay = make_relay(Kafka(judge))
        with in_thread(relay.run):
            until(lambda: relay._cycle.suspects)
        assert left() == 3


class TestTheDatabaseIsAway:
    @pytest.mark.parametrize("function", ["delete", "head", "parked_keys", "park"])
    def test_it_goes_on_and_loses_nothing(
        self, function: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = open_store("tests")
        real = getattr(store, function)
        failures = iter([1, 2, 3])

        def failing(*args: object, **kwargs: object) -> object:
            if next(failures, None):
                raise OperationalError("server closed the connection")
            return real(*args, **kwargs)

        def judge(batch: Sequence[Message]) -> list[str]:
            return ["refuse" if message.key == "bad" else "ok" for message in batch]

        monkeypatch.setattr(store, function, failing)
        put("a", "bad", "b", "a")
        broker = Kafka(judge)
        drain(broker, store=store)
        assert (broker.order_of("a"), broker.order_of("b")) == ([0, 3], [2])
        assert parked() == [("bad", 1)]


class TestDraining:
    def test_an_empty_outbox(self) -> None:
        assert drain(Kafka()) == 0

    def test_ends_when_told_to_stop(self) -> None:
        put("a")
        relay = make_relay(Kafka(lambda batch: ["away"] * len(batch)))
        with in_thread(relay.drain):
            until(lambda: relay._broker_outage.going_on)
        assert left() == 1
