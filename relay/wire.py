from brokers import Message
from brokers.cloudevents import CloudEvent, to_message
from outbox.models import OutboxMessage


def wire_message(row: OutboxMessage, *, source: str) -> Message:
    """The row as CloudEvents 1.0, Kafka binary mode; `ce_sequence` is the outbox id."""
    event = CloudEvent(
        id=str(row.message_id),
        type=row.type,
        source=source,
        subject=row.key,
        data=bytes(row.payload),
        sequence=row.id,
        time=row.created_at,
        correlation_id=row.correlation_id,
        traceparent=row.traceparent,
        extra=tuple(row.headers.items()),
    )
    return to_message(event, topic=row.topic)
