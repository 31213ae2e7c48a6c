"""The transactional outbox: messages written in the transaction of the rows that they tell of."""

from outbox.errors import NotInTransaction, OutboxError, RowError, TooManyKeys
from outbox.messages import NewMessage, enqueue, enqueue_many

__all__ = [
    "NewMessage",
    "NotInTransaction",
    "OutboxError",
    "RowError",
    "TooManyKeys",
    "enqueue",
    "enqueue_many",
]
