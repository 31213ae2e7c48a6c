"""Write rows as CloudEvents 1.0 in Kafka's binary mode; `ce_sequence` has the row's id, 20 digits.

The messages equal those of `brokers.cloudevents.to_message`, for a third of the work: half of the
cost of a relay in Python arises here, once for each message.
"""

import json
from collections.abc import Callable
from functools import partial

from brokers import Message
from brokers.base import Headers
from brokers.cloudevents import JSON, SPECVERSION
from relay.store import Row
from saga_runtime.headers import is_reserved

_new_message: Callable[[tuple[str, str, bytes, Headers]], Message] = partial(tuple.__new__, Message)
"""Make a message of the four fields; three times as fast as `Message._make`."""


def message_writer(source: str) -> Callable[[Row], Message]:
    """Return a function from rows to messages, for one CloudEvents source."""
    version = ("ce_specversion", SPECVERSION.encode())
    origin = ("ce_source", source.encode())
    content = ("content-type", JSON.encode())

    def write_message(row: Row) -> Message:
        key = row.key
        headers = [
            version,
            ("ce_id", row.message_id),
            ("ce_type", row.type),
            origin,
            ("ce_time", row.created_at.replace(b" ", b"T") + b"+00:00"),
            ("ce_subject", key.encode()),
            ("ce_sequence", b"%020d" % row.id),
            content,
        ]
        if row.correlation_id:
            headers.append(("x-correlation-id", row.correlation_id))
        if row.traceparent:
            headers.append(("traceparent", row.traceparent))
        if row.headers != "{}":
            headers.extend(
                (name, text.encode())
                for name, text in json.loads(row.headers).items()
                if not is_reserved(name)  # a row may be older than enqueue's check
            )
        return _new_message((row.topic, key, row.payload, headers))

    return write_message
