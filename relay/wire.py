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
        key = row.key.encode()
        headers = [
            version,
            ("ce_id", row.message_id),
            ("ce_type", row.type),
            origin,
            ("ce_time", row.created_at),
            ("ce_subject", key),
            ("ce_sequence", b"%d" % row.id),
            content,
        ]
        if row.correlation_id:
            headers.append(("x-correlation-id", row.correlation_id))
        if row.traceparent:
            headers.append(("traceparent", row.traceparent))
        if row.headers != "{}":
            more = json.loads(row.headers).items()
            headers.extend((name, text.encode()) for name, text in more if text)
        return Message(row.topic, row.key, row.payload, tuple(headers))

    return message
