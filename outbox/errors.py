"""Define the errors of the outbox, all derived from one base.

OutboxError ── NotInTransaction
├─ PayloadError
├─ RowError
└─ TooManyKeys
"""


class OutboxError(Exception):
    """Base of every error of this package."""


class NotInTransaction(OutboxError):  # noqa: N818 - states the fact
    """Raised by `enqueue()` outside a transaction.

    Outside a transaction the message could commit without its rows, or they without the message.
    """

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
    """Raised when a transaction enqueues under too many keys: each takes a lock until the commit.

    Args:
        most: keys per transaction.
    """

    def __init__(self, most: int) -> None:
        super().__init__(
            f"messages with more than {most:,} keys in one transaction: each key's lock is held"
            " until the commit, and all transactions share PostgreSQL's table of locks. Commit at"
            f" most {most:,} keys at a time, or give messages that belong together the same key"
        )
