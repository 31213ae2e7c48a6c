"""Remember the messages accepted by each consumer group."""

from collections.abc import Collection

from django.utils import timezone

from sagas.journal import sql

MessageIdentity = tuple[str, str]
"""The source and the id of a message, as CloudEvents names them; together unique."""

_COLUMNS = {
    "consumer": "text", "source": "text", "message_id": "text", "received_at": "timestamptz",
}  # fmt: skip


def insert_accepted(
    identities: Collection[MessageIdentity], *, consumer: str
) -> set[MessageIdentity]:
    """Insert an inbox row for each message that has none.

    Where another transaction is inserting the same message, this waits for its commit.

    Args:
        identities: source and id of each message.
        consumer: the consumer group.

    Returns:
        The messages that had no row.
    """
    if not identities:
        return set()
    now = sql.text_of(timezone.now())
    given, params = sql.rows_from(
        _COLUMNS,
        [
            dict(zip(_COLUMNS, (consumer, source, message_id, now), strict=True))
            # In order: two consumers that are sent the same messages must not deadlock.
            for source, message_id in sorted(identities)
        ],
    )
    text = (
        f"INSERT INTO sagas_inbox ({', '.join(_COLUMNS)}) {given}"
        " ON CONFLICT DO NOTHING RETURNING source, message_id"
    )
    return {(source, message_id) for source, message_id in sql.run(text, params)}
