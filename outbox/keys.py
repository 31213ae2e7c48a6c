"""The lock of a key, on PostgreSQL: who holds it writes, parks or puts back the key's messages.
SQLite needs none, its transactions write one after the other."""

from django.db import connection

_SPACE = 0x6F7574 << 32  # "out": keeps clear of other users of advisory locks


def lock_number(key_hash: int) -> int:
    """The advisory lock of the keys with this hash."""
    return _SPACE | key_hash


def lock_key(key_hash: int) -> None:
    """Wait for the lock, and hold it until the transaction ends."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [lock_number(key_hash)])


def try_lock_key(key_hash: int) -> bool:
    """Hold the lock until the transaction ends, if nobody else does."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [lock_number(key_hash)])
        return bool(cursor.fetchone()[0])
