"""OutboxError ── NotInTransaction
           └─ PayloadError
"""


class OutboxError(Exception):
    """The base of every error that this package raises."""


class NotInTransaction(OutboxError):  # noqa: N818 - states the fact
    """enqueue() was called outside a transaction: wrap it, and the rows it tells of, in transaction.atomic()."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class PayloadError(OutboxError):
    """Raised when a payload is not JSON, or a key, type or header cannot be sent."""
