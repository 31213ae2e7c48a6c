"""The wire form, read back by the CloudEvents project's own package."""

import dataclasses
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from hypothesis import given
from hypothesis import strategies as st

from brokers import Message, Record
from brokers.base import Headers
from brokers.cloudevents import (
    CloudEvent,
    NotACloudEvent,
    from_record,
    sequence_text,
    to_message,
)
from tests import strategies

EVENT = CloudEvent(
    id="0195-7",
    type="orders.place",
    source="/orders",
    subject="ORD-001",
    data=b'{"amount": "10.50"}',
    sequence=42,
    time=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    correlation_id="req-1",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)


def with_header(name: str, value: bytes) -> Headers:
    """Return the headers of `EVENT`, one of them with another value."""
    others = (pair for pair in to_message(EVENT, topic="t").headers if pair[0] != name)
    return (*others, (name, value))


def received(message: Message) -> Record:
    return Record(
        topic=message.topic,
        partition=0,
        offset=0,
        key=message.key.encode(),
        value=message.value,
        headers=message.headers,
    )


def test_the_reference_package_reads_what_we_write() -> None:
    message = to_message(EVENT, topic="orders.commands")
    headers = dict(message.headers)
    assert headers["ce_specversion"] == b"1.0", "the package does not look at it"
    read = from_binary_event(KafkaMessage(headers, message.key.encode(), message.value))
    assert read.get_id() == EVENT.id
    assert read.get_type() == EVENT.type
    assert read.get_source() == EVENT.source
    assert read.get_subject() == EVENT.subject
    assert read.get_time() == EVENT.time
    assert read.get_datacontenttype() == "application/json"
    assert read.get_data() == {"amount": "10.50"}
    assert read.get_extension("sequence") == "00000000000000000042"


def test_the_parts_of_a_message() -> None:
    message = to_message(EVENT, topic="orders.commands")
    assert message.topic == "orders.commands"
    assert message.key == "ORD-001"
    assert message.value == b'{"amount": "10.50"}'
    assert dict(message.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"0195-7",
        "ce_type": b"orders.place",
        "ce_source": b"/orders",
        "ce_time": b"2026-01-02T03:04:05.678901+00:00",
        "ce_subject": b"ORD-001",
        "ce_sequence": b"00000000000000000042",
        "content-type": b"application/json",
        "x-correlation-id": b"req-1",
        "traceparent": EVENT.traceparent.encode(),
    }


def test_what_is_empty_is_left_out() -> None:
    bare = CloudEvent(id="1", type="t", source="/s", subject="k", data=b"")
    names = [name for name, _ in to_message(bare, topic="t").headers]
    assert names == [
        "ce_specversion",
        "ce_id",
        "ce_type",
        "ce_source",
        "ce_subject",
        "content-type",
    ]


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_sequences_sort_as_texts(one: int, other: int) -> None:
    assert (sequence_text(one) < sequence_text(other)) == (one < other)


@pytest.mark.parametrize("text", ["42", "00000000000000000042"])
def test_a_sequence_is_read_as_it_was_sent_before_too(text: str) -> None:
    headers = with_header("ce_sequence", text.encode())
    assert from_record(Record("t", 0, 0, b"k", b"", headers)).sequence == 42


OURS = [
    "ce_id",
    "CE_Id",
    "ce_more",
    "Content-Type",
    "traceparent",
    "X-Correlation-ID",
]


@pytest.mark.parametrize("name", OURS)
def test_further_headers_displace_none_of_ours(name: str) -> None:
    extra = ((name, "theirs"), ("x-empty", ""), ("x-tenant", "green"))
    message = to_message(dataclasses.replace(EVENT, extra=extra), topic="t")
    assert message.headers == (
        *to_message(EVENT, topic="t").headers,
        ("x-empty", b""),
        ("x-tenant", b"green"),
    )


def test_there_and_back() -> None:
    assert from_record(received(to_message(EVENT, topic="t"))) == EVENT


@given(
    st.builds(
        CloudEvent,
        id=strategies.text(min_size=1),
        type=strategies.text(min_size=1),
        source=strategies.text(min_size=1),
        subject=strategies.text(min_size=1),
        data=st.binary(),
        sequence=st.none() | st.integers(0, 2**63 - 1),
        time=st.none() | st.datetimes(timezones=st.just(UTC)),
        correlation_id=strategies.text(),
        traceparent=strategies.text(),
    )
)
def test_any_event_there_and_back(event: CloudEvent) -> None:
    assert from_record(received(to_message(event, topic="t"))) == event


@pytest.mark.parametrize("name", ["ce_specversion", "ce_id", "ce_type", "ce_source"])
def test_a_required_header_is_missing(name: str) -> None:
    message = to_message(EVENT, topic="t")
    headers = tuple(pair for pair in message.headers if pair[0] != name)
    record = received(Message(message.topic, message.key, message.value, headers))
    with pytest.raises(NotACloudEvent, match=f"missing header: {name}"):
        from_record(record)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("ce_specversion", b"0.3", r"ce_specversion is '0\.3', not 1\.0"),
        ("ce_time", b"yesterday", "ce_time 'yesterday' is not a time"),
        ("ce_id", b"\xff", "a header is not UTF-8"),
    ],
)
def test_a_header_that_cannot_be_read(name: str, value: bytes, complaint: str) -> None:
    message = to_message(EVENT, topic="t")
    headers = with_header(name, value)
    record = received(Message(message.topic, message.key, message.value, headers))
    with pytest.raises(NotACloudEvent, match=complaint):
        from_record(record)


@pytest.mark.parametrize("name", ["ce_id", "CE_ID", "Ce_Subject", "ce_time", "ce_specversion"])
def test_an_attribute_that_stands_there_twice(name: str) -> None:
    headers = (*to_message(EVENT, topic="t").headers, (name, b"1.0"))
    with pytest.raises(NotACloudEvent, match=f"{name.lower()} stands there twice"):
        from_record(Record("t", 0, 0, b"k", b"", headers))


def test_tracing_may_add_a_header_that_is_there() -> None:
    headers = (*to_message(EVENT, topic="t").headers, ("traceparent", b"theirs"))
    assert from_record(Record("t", 0, 0, b"k", b"", headers)).traceparent == "theirs"


def test_header_names_in_any_case_and_the_key_for_a_subject() -> None:
    headers = (
        ("CE_SpecVersion", b"1.0"),
        ("Ce_Id", b"1"),
        ("ce_TYPE", b"t"),
        ("ce_source", b"/s"),
    )
    event = from_record(Record("t", 0, 0, b"the key", None, headers))
    assert event == CloudEvent(id="1", type="t", source="/s", subject="the key", data=b"")


@pytest.mark.parametrize("text", [b"", b"-1", b"1.5", b"seven", "٣".encode(), b"9" * 5000])
def test_a_foreign_sequence_is_no_sequence(text: bytes) -> None:
    message = to_message(EVENT, topic="t")
    headers = with_header("ce_sequence", text)
    record = received(Message(message.topic, message.key, message.value, headers))
    assert from_record(record).sequence is None


_NAMES = strategies.text() | st.sampled_from(
    [name for name, _ in to_message(EVENT, topic="t").headers]
)
_VALUES = (
    st.binary() | strategies.text().map(str.encode) | st.sampled_from([b"1.0", b"1", b"2026-01-02"])
)
_FULL = to_message(EVENT, topic="t").headers


@given(
    key=st.none() | st.binary(),
    value=st.none() | st.binary(),
    headers=st.lists(st.tuples(_NAMES, _VALUES)),
    base=st.sampled_from([(), _FULL]),
)
def test_any_record_is_an_event_or_says_why_not(
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes]],
    base: tuple[tuple[str, bytes], ...],
) -> None:
    record = Record("t", 0, 0, key, value, (*base, *headers))
    with suppress(NotACloudEvent):
        event = from_record(record)
        assert event.id
        assert event.data == (value or b"")
