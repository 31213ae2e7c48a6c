"""Convert CloudEvents 1.0 to messages and back, in Kafka's binary mode.

The attributes of an event are `ce_` headers, the data is the value.

Source: CloudEvents 1.0.2 and its Kafka protocol binding 1.0.2.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from brokers.base import Headers, Message, Record
from saga_runtime.headers import is_reserved
from saga_runtime.text import cut, visible

SPECVERSION = "1.0"
JSON = "application/json"
_REQUIRED = ("ce_specversion", "ce_id", "ce_type", "ce_source")


class NotACloudEvent(Exception):  # noqa: N818 - says what the record is
    """Raised when a record is not a CloudEvent in binary mode; the text says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """An event.

    Attributes:
        id: unique within the source.
        type: names the event or the command.
        source: the sender, as a URI reference.
        subject: the entity of the event; the message's key.
        data: the body, byte for byte.
        sequence: rises within a subject.
        time: when the event was made.
        content_type: of the body.
        correlation_id: header `x-correlation-id`.
        traceparent: header of W3C Trace Context.
        extra: further headers; reserved names are left out.
    """

    id: str
    type: str
    source: str
    subject: str
    data: bytes
    sequence: int | None = None
    time: datetime | None = None
    content_type: str = JSON
    correlation_id: str = ""
    traceparent: str = ""
    extra: tuple[tuple[str, str], ...] = ()


def to_message(event: CloudEvent, *, topic: str) -> Message:
    """Make a broker's message of an event; the subject is the key."""
    fields = {
        "ce_specversion": SPECVERSION,
        "ce_id": event.id,
        "ce_type": event.type,
        "ce_source": event.source,
        "ce_time": event.time.isoformat() if event.time else "",
        "ce_subject": event.subject,
        "ce_sequence": "" if event.sequence is None else sequence_text(event.sequence),
        "content-type": event.content_type,
        "x-correlation-id": event.correlation_id,
        "traceparent": event.traceparent,
    }
    fields = {name: text for name, text in fields.items() if text}
    fields |= {name: text for name, text in event.extra if not is_reserved(name)}
    headers: Headers = tuple((name, text.encode()) for name, text in fields.items())
    return Message(topic=topic, key=event.subject, value=event.data, headers=headers)


def sequence_text(sequence: int) -> str:
    """Write a sequence with twenty digits: the text sorts as the number does.

    CloudEvents' extension `sequence` asks for that.
    """
    return f"{sequence:020d}"


def from_record(record: Record) -> CloudEvent:
    """Read the event that a record holds.

    Raises:
        NotACloudEvent: a required header is missing, or a header cannot be read.
    """
    if record.unreadable:
        raise NotACloudEvent(record.unreadable)
    headers = _texts(record.headers)
    missing = [name for name in _REQUIRED if not headers.get(name)]
    if missing:
        raise NotACloudEvent(f"missing header: {', '.join(missing)}")
    if headers["ce_specversion"] != SPECVERSION:
        raise NotACloudEvent(f"ce_specversion is {headers['ce_specversion']!r}, not 1.0")
    return CloudEvent(
        id=headers["ce_id"],
        type=headers["ce_type"],
        source=headers["ce_source"],
        subject=headers.get("ce_subject") or _key(record),
        data=record.value or b"",
        sequence=_sequence(headers.get("ce_sequence", "")),
        time=_time(headers.get("ce_time", "")),
        content_type=headers.get("content-type", JSON),
        correlation_id=headers.get("x-correlation-id", ""),
        traceparent=headers.get("traceparent", ""),
    )


def _texts(headers: Headers) -> dict[str, str]:
    """Decode the headers by their names in lower case.

    A second value of an event's attribute is an error: readers could disagree on the value. Further
    headers may be repeated, as tracing does with `traceparent`; the last value counts.
    """
    found: dict[str, str] = {}
    try:
        for name, value in headers:
            lower = name.lower()
            if lower in found and lower.startswith("ce_"):
                raise NotACloudEvent(f"the header {cut(visible(lower), 100)} stands there twice")
            found[lower] = value.decode()
    except UnicodeDecodeError as error:
        raise NotACloudEvent(f"a header is not UTF-8: {error}") from error
    return found


def _key(record: Record) -> str:
    try:
        return (record.key or b"").decode()
    except UnicodeDecodeError as error:
        raise NotACloudEvent(f"the key is not UTF-8: {error}") from error


def _sequence(text: str) -> int | None:
    """Read a sequence with or without leading zeros: a topic may hold both forms."""
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise NotACloudEvent(f"ce_time {text!r} is not a time") from error
