"""The row as CloudEvents 1.0, Kafka binary mode; `ce_sequence` is the outbox id, in twenty digits.

It says what `brokers.cloudevents.to_message` says, and is a third of its work: half of what a relay
in Python costs is done here, once for each message.
"""

import json
from collections.abc import Callable
from functools import partial

from brokers import Message
from brokers.base import Headers
from brokers.cloudevents import JSON, SPECVERSION
from relay.rows import Row
from saga_runtime.headers import is_reserved

_new_message: Callable[[tuple[str, str, bytes, Headers]], Message] = partial(tuple.__new__, Message)
"""`Message._make`, three times as fast."""


def wire_messages(source: str) -> Callable[[Row], Message]:
    """What makes messages of rows, for one CloudEvents source."""
    version = ("ce_specversion", SPECVERSION.encode())
    origin = ("ce_source", source.encode())
    content = ("content-type", JSON.encode())

    def message(row: Row) -> Message:
        number, _, _, topic, key, payload, more, id_, kind, correlation_id, traceparent, at = row
        headers = [
            version,
            ("ce_id", id_),
            ("ce_type", kind),
            origin,
            ("ce_time", at.replace(b" ", b"T") + b"+00:00"),
            ("ce_subject", key.encode()),
            ("ce_sequence", b"%020d" % number),
            content,
        ]
        if correlation_id:
            headers.append(("x-correlation-id", correlation_id))
        if traceparent:
            headers.append(("traceparent", traceparent))
        if more != "{}":
            headers.extend(
                (name, text.encode())
                for name, text in json.loads(more).items()
                if not is_reserved(name)  # a row may have come past enqueue()
            )
        return _new_message((topic, key, payload, headers))

    return message
