"""The transactional outbox: messages written in the transaction of the rows that they tell of."""

from outbox.errors import NotInTransaction, OutboxError
from outbox.messages import NewMessage, enqueue, enqueue_many

__all__ = ["NewMessage", "NotInTransaction", "OutboxError", "enqueue", "enqueue_many"]
