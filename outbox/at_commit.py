"""What a transaction has enqueued, and what happens once it has committed."""

from django.db import DEFAULT_DB_ALIAS, connections

from outbox.errors import TooManyKeys
from outbox.keys import MOST_KEYS
from outbox.waking import wake


class AtCommit:
    """One transaction's keys, and relays' wake-up after its commit. It lives among the connection's
    callbacks, and so ends with the transaction, or with the savepoint in which it was made."""

    def __init__(self) -> None:
        self._keys: set[int] = set()

    def add(self, *key_hashes: int) -> None:
        """Note keys whose locks are about to be taken.

        Raises:
            TooManyKeys: those would be more than the transaction may hold; none is noted.
        """
        keys = self._keys.union(key_hashes)
        if len(keys) > MOST_KEYS:
            raise TooManyKeys(MOST_KEYS)
        self._keys = keys

    def __call__(self) -> None:
        wake()


def at_commit() -> AtCommit:
    """Return the one of the transaction, which is made for its first message.

    One that was made in a savepoint serves whoever comes later, too: while it is there, that
    savepoint is open, or released into one that is.
    """
    database = connections[DEFAULT_DB_ALIAS]
    for callback in reversed(database.run_on_commit):
        if isinstance(callback[1], AtCommit):
            return callback[1]
    made = AtCommit()
    database.on_commit(made, robust=True)
    return made
