"""Keep a transaction's keys, and wake relays once the transaction has committed."""

from django.db import DEFAULT_DB_ALIAS, connections

from outbox.errors import TooManyKeys
from outbox.keys import MOST_KEYS
from outbox.waking import wake


class CommitHook:
    """Note the keys of one transaction, and wake relays after the commit.

    The hook lives among the connection's commit callbacks, and so ends with the transaction, or
    with the savepoint of the first message.
    """

    def __init__(self) -> None:
        self._keys: set[int] = set()

    def add(self, *key_hashes: int) -> None:
        """Note keys whose locks are about to be taken.

        Args:
            key_hashes: murmur2 of each key.

        Raises:
            TooManyKeys: the transaction would hold more keys than allowed; none is noted.
        """
        keys = self._keys.union(key_hashes)
        if len(keys) > MOST_KEYS:
            raise TooManyKeys(MOST_KEYS)
        self._keys = keys

    def __call__(self) -> None:
        """Wake relays; Django calls this after the commit."""
        wake()


def commit_hook() -> CommitHook:
    """Return the transaction's hook; the first message makes it.

    A hook made in a savepoint serves later messages, too: as long as Django keeps the callback, the
    savepoint is open, or released into an outer block that is open.
    """
    database = connections[DEFAULT_DB_ALIAS]
    for callback in reversed(database.run_on_commit):
        if isinstance(callback[1], CommitHook):
            return callback[1]
    hook = CommitHook()
    # robust: an error of another callback must not keep relays asleep.
    database.on_commit(hook, robust=True)
    return hook
