"""OutboxError ── NotInTransaction
├─ PayloadError
├─ RowError
└─ TooManyKeys
"""


class OutboxError(Exception):
    """The base of every error that this package raises."""


class NotInTransaction(OutboxError):  # noqa: N818 - states the fact
    """Raised by enqueue() outside a transaction: the row it tells of could commit without it."""

    def __init__(self) -> None:
        super().__init__(
            "enqueue() was called outside a transaction: "
            "put it, and the rows it tells of, into transaction.atomic()"
        )


class PayloadError(OutboxError):
    """Raised when a payload is not JSON, or a topic, key, type or header cannot be sent."""


class RowError(OutboxError):
    """Raised when a row given to `insert_first` cannot be inserted with the message."""


class TooManyKeys(OutboxError):  # noqa: N818 - states the fact
    """Raised when a transaction enqueues under more keys than it may hold locks for.

    Args:
        most: keys that it may have.
    """

    def __init__(self, most: int) -> None:
        super().__init__(
            f"messages with more than {most:,} keys in one transaction: each key's lock is held"
            " until the commit, and all transactions share PostgreSQL's table of locks. Commit at"
            f" most {most:,} keys at a time, or give messages that belong together the same key"
        )
