"""The row as CloudEvents 1.0, Kafka binary mode; `ce_sequence` is the outbox id.

It says what `brokers.cloudevents.to_message` says, and is a third of its work: half of what a relay
in Python costs is done here, once for each message.
"""

import json
from collections.abc import Callable

from brokers import Message
from brokers.cloudevents import JSON, SPECVERSION
from relay.rows import Row


def wire_messages(source: str) -> Callable[[Row], Message]:
    """What makes messages of rows, for one CloudEvents source."""
    version = ("ce_specversion", SPECVERSION.encode())
    origin = ("ce_source", source.encode())
    content = ("content-type", JSON.encode())

    def message(row: Row) -> Message:
        headers = [
            version,
            ("ce_id", row.message_id.encode()),
            ("ce_type", row.type.encode()),
            origin,
            ("ce_time", row.created_at.isoformat().encode()),
            ("ce_subject", row.key.encode()),
            ("ce_sequence", b"%d" % row.id),
            content,
        ]
        if row.correlation_id:
            headers.append(("x-correlation-id", row.correlation_id.encode()))
        if row.traceparent:
            headers.append(("traceparent", row.traceparent.encode()))
        if row.headers != "{}":
            more = json.loads(row.headers).items()
            headers.extend((name, text.encode()) for name, text in more if text)
        return Message(row.topic, row.key, bytes(row.payload), tuple(headers))

    return message
