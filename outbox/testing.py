"""Look at the outbox in a test: what has been enqueued, without a relay and a broker.

    from outbox.testing import assert_enqueued, messages

    @pytest.mark.django_db
    def test_signing_up(client):
        client.post("/sign-up/", {"email": "a@example.com"})
        message = assert_enqueued(type="signup.placed", key="a@example.com")
        assert message.payload["email"] == "a@example.com"
        assert len(messages()) == 1

It works within `TestCase` too: the rows are those of the test's own transaction.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outbox.models import OutboxMessage


@dataclass(frozen=True, slots=True)
class Message:
    """Describe a message that waits in the outbox.

    Attributes:
        topic: where it goes.
        key: the partition key.
        type: of the event, as CloudEvents calls it.
        payload: as a consumer reads it from JSON: lists in the place of tuples, texts in the place
            of decimals.
        headers: further headers, without those of CloudEvents.
        correlation_id: of the request or message in which it was enqueued.
    """

    topic: str
    key: str
    type: str
    payload: Any
    headers: Mapping[str, str]
    correlation_id: str


def messages(
    *,
    topic: str | None = None,
    type: str | None = None,  # noqa: A002 - CloudEvents' name
    key: str | None = None,
) -> list[Message]:
    """Return the messages in the outbox, in the order in which they were enqueued.

    Args:
        topic: only messages to this topic.
        type: only messages of this type.
        key: only messages with this key.
    """
    given = {"topic": topic, "type": type, "key": key}
    wanted = {name: value for name, value in given.items() if value is not None}
    rows = OutboxMessage.objects.filter(**wanted).order_by("id")
    return [
        Message(
            row.topic, row.key, row.type, json.loads(bytes(row.payload)), row.headers,
            row.correlation_id,
        )
        for row in rows
    ]  # fmt: skip


def assert_enqueued(
    *,
    topic: str | None = None,
    type: str | None = None,  # noqa: A002 - CloudEvents' name
    key: str | None = None,
) -> Message:
    """Check that the outbox has exactly one such message, and return the message.

    Args:
        topic: as for `messages()`, and so are the others.
        type: of the event.
        key: the partition key.

    Raises:
        AssertionError: there is none, or more than one; the text lists what is in the outbox.
    """
    found = messages(topic=topic, type=type, key=key)
    if len(found) != 1:
        given = {"topic": topic, "type": type, "key": key}
        wanted = ", ".join(
            f"{name}={value!r}" for name, value in given.items() if value is not None
        )
        listed = "".join(f"\n  {m.type} to {m.topic}, key {m.key}" for m in messages())
        raise AssertionError(
            f"{len(found)} messages with {wanted or 'anything'} are in the outbox, which holds"
            f"{listed or ' nothing'}"
        )
    return found[0]
