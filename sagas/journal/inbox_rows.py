"""Remember the messages accepted by each consumer group."""

from collections.abc import Collection

from sagas.models import InboxMessage

MessageIdentity = tuple[str, str]
"""The source and the id of a message, as CloudEvents names them; together unique."""


def already_accepted(
    identities: Collection[MessageIdentity], *, consumer: str
) -> set[MessageIdentity]:
    """Find the messages already accepted by a consumer group.

    Args:
        identities: source and id of each message.
        consumer: the consumer group.
    """
    ids = [message_id for _, message_id in identities]
    rows = InboxMessage.objects.filter(consumer=consumer, message_id__in=ids)
    return {*rows.values_list("source", "message_id")} & {*identities}


def insert_accepted(identities: Collection[MessageIdentity], *, consumer: str) -> None:
    """Insert an inbox row for each message; existing rows stay."""
    InboxMessage.objects.bulk_create(
        [
            InboxMessage(consumer=consumer, source=source, message_id=message_id)
            for source, message_id in identities
        ],
        ignore_conflicts=True,
    )
