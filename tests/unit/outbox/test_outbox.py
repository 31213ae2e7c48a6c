import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Group
from django.db import IntegrityError, transaction
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as kafka_murmur2

from outbox import NewMessage, NotInTransaction, enqueue, enqueue_many
from outbox.errors import PayloadError
from outbox.models import OutboxMessage
from outbox.murmur2 import murmur2
from outbox.queries import oldest_age
from saga_runtime.correlation import Correlation, correlated

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def put(**changes: Any) -> OutboxMessage:
    message: dict[str, Any] = {
        "topic": "shop.commands",
        "key": "K-1",
        "type": "shop.buy",
        "payload": {"n": 1},
    }
    return enqueue(**message | changes)


class TestTheTransaction:
    @pytest.mark.django_db(transaction=True)
    def test_outside_one_it_refuses(self) -> None:
        with pytest.raises(NotInTransaction, match=r"transaction\.atomic"):
            put()
        assert not OutboxMessage.objects.exists()

    @pytest.mark.django_db(transaction=True)
    def test_rolled_back_it_leaves_nothing(self) -> None:
        with transaction.atomic():
            put()
            transaction.set_rollback(True)
        assert not OutboxMessage.objects.exists()

    @pytest.mark.django_db(transaction=True)
    def test_committed_it_is_there(self) -> None:
        with transaction.atomic():
            row = put()
        assert OutboxMessage.objects.get().id == row.id

    @pytest.mark.django_db
    def test_of_several_a_bad_one_leaves_none(self) -> None:
        good = NewMessage(topic="t", key="a", type="x", payload=1)
        bad = NewMessage(topic="t", key="b", type="x", payload=math.nan)
        with pytest.raises(PayloadError):
            enqueue_many([good, bad])
        assert not OutboxMessage.objects.exists()


@pytest.mark.django_db
class TestThePayload:
    def test_is_stored_as_the_bytes_that_are_sent(self) -> None:
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        identity = UUID("0af76519-16cd-43dd-8448-eb211c80319c")
        put(payload={"amount": Decimal("1.50"), "at": moment, "id": identity, "who": "Zoë"})
        stored = bytes(OutboxMessage.objects.get().payload)
        assert stored == (
            b'{"amount":"1.50","at":"2026-01-02T03:04:05Z",'
            b'"id":"0af76519-16cd-43dd-8448-eb211c80319c","who":"Zo\\u00eb"}'
        )
        assert json.loads(stored)["who"] == "Zoë"

    @pytest.mark.parametrize("payload", [math.nan, math.inf, -math.inf, {"deep": [math.nan]}])
    def test_no_number_is_refused(self, payload: object) -> None:
        with pytest.raises(PayloadError, match=r"shop\.buy is not JSON"):
            put(payload=payload)

    @pytest.mark.parametrize("payload", [object(), {1, 2}, b"bytes", {("a", "b"): 1}])
    def test_what_json_cannot_hold_is_refused(self, payload: object) -> None:
        with pytest.raises(PayloadError):
            put(payload=payload)

    def test_two_names_that_are_one_in_json_are_refused(self) -> None:
        with pytest.raises(PayloadError, match="has the name '1' twice"):
            put(payload={"x": [{1: "a", "1": "b"}]})

    def test_one_that_holds_itself_is_refused(self) -> None:
        loop: list[Any] = []
        loop.append(loop)
        with pytest.raises(PayloadError):
            put(payload=loop)


@pytest.mark.django_db
class TestTheEnvelope:
    def test_takes_the_correlation_of_what_is_handled(self) -> None:
        with correlated(Correlation("trace-1", TRACEPARENT)):
            row = put()
        row.refresh_from_db()
        assert (row.correlation_id, row.traceparent) == ("trace-1", TRACEPARENT)

    def test_outside_any_it_is_empty(self) -> None:
        row = put()
        assert (row.correlation_id, row.traceparent) == ("", "")

    def test_keeps_further_headers(self) -> None:
        row = put(headers={"x-tenant": "green", "x-empty": ""})
        row.refresh_from_db()
        assert row.headers == {"x-tenant": "green", "x-empty": ""}

    def test_each_message_has_an_id_of_its_own(self) -> None:
        assert put().message_id != put().message_id

    def test_the_key_may_be_255_characters_of_any_script(self) -> None:
        key = "ü" * 255
        row = put(key=key)
        row.refresh_from_db()
        assert (row.key, row.key_hash) == (key, kafka_hash(key.encode()))

    @pytest.mark.parametrize("topic", ["", "a b", "a/b", "t" * 250, "thé", "t\n"])
    def test_a_bad_topic_is_refused(self, topic: str) -> None:
        with pytest.raises(PayloadError, match="topic"):
            put(topic=topic)

    @pytest.mark.parametrize("field", ["key", "type"])
    @pytest.mark.parametrize("text", ["", "k" * 256, "a\0b", "a\ud800b", 5, None, b"k"])
    def test_a_bad_key_or_type_is_refused(self, field: str, text: object) -> None:
        with pytest.raises(PayloadError, match=field):
            put(**{field: text})

    @pytest.mark.parametrize(
        "headers",
        [
            {"ce_id": "1"},
            {"ce_": "1"},
            {"X-Upper": "1"},
            {"content-type": "text/plain"},
            {"Content-Type": "text/plain"},
            {"traceparent": "1"},
            {"x-correlation-id": "1"},
            {5: "1"},
            {"": "1"},
            {"a b": "1"},
            {"x": "a\0b"},
            {"x": "\udfff"},
            {"x": 5},
            {"x\n": "1"},
        ],
    )
    def test_a_bad_header_is_refused(self, headers: Mapping[str, Any]) -> None:
        with pytest.raises(PayloadError, match="header"):
            put(headers=headers)


@pytest.mark.django_db
class TestRowsThatItTellsOf:
    def test_are_stored_with_it(self) -> None:
        buyers, sellers = Group(name="buyers"), Group(name="sellers")
        row = put(insert_first=[buyers, sellers])
        assert list(Group.objects.order_by("id")) == [buyers, sellers]
        assert OutboxMessage.objects.get() == row

    def test_can_be_saved_again(self) -> None:
        group = Group(name="buyers")
        put(insert_first=[group])
        group.name = "sellers"
        group.save()
        assert Group.objects.get().name == "sellers"

    def test_one_that_the_database_refuses_leaves_no_message(self) -> None:
        Group.objects.create(name="buyers")
        with pytest.raises(IntegrityError), transaction.atomic():
            put(insert_first=[Group(name="buyers")])
        assert not OutboxMessage.objects.exists()

    def test_a_bad_message_leaves_none_of_them(self) -> None:
        with pytest.raises(PayloadError):
            put(payload=math.nan, insert_first=[Group(name="buyers")])
        assert not Group.objects.exists()


@pytest.mark.django_db
class TestSeveral:
    def test_are_sorted_by_key_and_keep_their_order_within_one(self) -> None:
        keys = ["c", "a", "b", "a", "c"]
        enqueue_many(
            NewMessage(topic="t", key=key, type="x", payload=n) for n, key in enumerate(keys)
        )
        rows = OutboxMessage.objects.order_by("id")
        assert [(row.key, json.loads(bytes(row.payload))) for row in rows] == [
            ("a", 1), ("a", 3), ("b", 2), ("c", 0), ("c", 4),
        ]  # fmt: skip

    def test_none_is_none(self) -> None:
        assert enqueue_many([]) == []


class TestTheHash:
    @pytest.mark.parametrize(
        ("key", "expected"),
        # From Kafka's own UtilsTest.java, without their sign.
        [
            (b"21", -973932308),
            (b"foobar", -790332482),
            (b"a-little-bit-long-string", -985981536),
            (b"a-little-bit-longer-string", -1486304829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            (b"abc", 479470107),
        ],
    )
    def test_is_that_of_kafkas_java_client(self, key: bytes, expected: int) -> None:
        assert murmur2(key) == expected & 0x7FFFFFFF

    @given(st.binary(max_size=40))
    def test_is_that_of_kafka_python(self, key: bytes) -> None:
        assert murmur2(key) == kafka_hash(key)


def kafka_hash(key: bytes) -> int:
    return int(kafka_murmur2(key)) & 0x7FFFFFFF


@pytest.mark.django_db
class TestTheOldestAge:
    def test_of_an_empty_outbox_is_zero(self) -> None:
        assert oldest_age() == timedelta()

    def test_is_that_of_the_first_row(self) -> None:
        first, second = put(), put()
        now = timezone.now()
        OutboxMessage.objects.filter(id=first.id).update(created_at=now - timedelta(minutes=5))
        OutboxMessage.objects.filter(id=second.id).update(created_at=now)
        assert timedelta(minutes=5) <= oldest_age() < timedelta(minutes=6)
