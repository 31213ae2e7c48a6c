"""CloudEvents 1.0 in Kafka's binary mode: attributes as `ce_` headers, the data as the value.

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
    """Raised when a record is not a CloudEvent in binary mode; its text says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """One event. `sequence` only rises within a subject; `data` is the body, byte for byte; of
    `extra` headers none displaces the event's own."""

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
    """The event as a broker's message; its subject is the key."""
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
    """A sequence as CloudEvents' extension of that name wants it: a text that sorts as the number
    does, by twenty digits."""
    return f"{sequence:020d}"


def from_record(record: Record) -> CloudEvent:
    """The event that a record holds.

    Raises:
        NotACloudEvent: a required header is missing or unreadable.
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
    """Decode the headers by their names in lower case. Of an attribute of the event, a second value
    would be another event to another reader; tracing may well add a second `traceparent`."""
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
    """With or without leading zeros: there were none before, and both may be in a topic."""
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise NotACloudEvent(f"ce_time {text!r} is not a time") from error
