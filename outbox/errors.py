"""OutboxError ── NotInTransaction
└─ PayloadError
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
