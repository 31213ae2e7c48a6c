"""Hold messages in a table until a relay has published them: the transactional outbox.

Any app enqueues messages here, in the transaction of the rows they are about; relay and sagas
read the tables through `outbox.models`. Nothing in this package connects to a broker, and no
message knows an app's tables.
"""

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
