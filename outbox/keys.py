"""Lock a key, on PostgreSQL: who holds the lock writes, parks or puts back the key's messages.

SQLite needs no such lock, because its transactions write one after the other.
"""

from collections.abc import Collection

from django.db import connection

MOST_KEYS = 1_000
"""Keys under which a transaction may enqueue. PostgreSQL holds a lock for each until the commit,
and by default has room for 6,400 locks of all transactions together."""

_SPACE = 0x6F7574 << 32  # "out": keeps clear of other users of advisory locks


def lock_number(key_hash: int) -> int:
    """Return the number of the advisory lock for a key.

    Args:
        key_hash: murmur2 of the key; keys with the same hash share a lock.
    """
    return _SPACE | key_hash


def lock_key(key_hash: int) -> None:
    """Wait for the key's lock, and hold it until the transaction ends."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [lock_number(key_hash)])


def try_lock_keys(key_hashes: Collection[int]) -> set[int]:
    """Take the locks that are free, and hold them until the transaction ends.

    Returns:
        The hashes whose locks are held now.
    """
    if connection.vendor != "postgresql":
        return set(key_hashes)
    numbers = {lock_number(key_hash): key_hash for key_hash in key_hashes}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT number FROM unnest(%s::bigint[]) AS given (number)"
            " WHERE pg_try_advisory_xact_lock(number)",
            [[*numbers]],
        )
        return {numbers[number] for (number,) in cursor.fetchall()}
