"""Deliver commands in a test: from the outbox to the inbox, without a relay and a broker."""

from typing import TYPE_CHECKING

from django.db import transaction

from brokers import Record
from brokers.cloudevents import CloudEvent, to_message
from saga_runtime import project_settings

if TYPE_CHECKING:
    from outbox.models import OutboxMessage


def deliver_commands() -> int:
    """Accept the commands that are in the outbox, as relay and consumer would; delete their rows.

    Only rows of the COMMAND_TOPICS are taken: events stay, for a test to look at.
    A command that cannot become a saga is kept in `sagas.models.RefusedCommand`.

    Returns:
        How many of the commands have given a worker something to do.
    """
    from outbox.models import OutboxMessage
    from sagas.inbox import accepting

    with transaction.atomic():
        rows = list(
            OutboxMessage.objects.filter(topic__in=project_settings.command_topics()).order_by("id")
        )
        records = [_record(row) for row in rows]
        accepted = accepting.accept(records, consumer=project_settings.consumer_group())
        OutboxMessage.objects.filter(id__in=[row.id for row in rows]).delete()
    return accepted


def _record(row: "OutboxMessage") -> Record:
    """Make the record that Kafka would hand out for this row."""
    event = CloudEvent(
        id=str(row.message_id),
        type=row.type,
        source=project_settings.source(),
        subject=row.key,
        data=bytes(row.payload),
        sequence=row.id,
        correlation_id=row.correlation_id,
        traceparent=row.traceparent,
        extra=tuple(row.headers.items()),
    )
    message = to_message(event, topic=row.topic)
    return Record(row.topic, 0, row.id, message.key.encode(), message.value, message.headers)
