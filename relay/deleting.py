"""Deletes what the broker has acknowledged, on PostgreSQL in a thread of its own: meanwhile the
next batch is read and published. Where the pool has a single connection, that is not possible.

Invariants:
- There is one delete at a time.
- Until it is known to have committed, its rows count as under way: no read finds them, and no key
  of theirs is parked.
- After one that failed nobody knows what it did. Its rows are deleted again.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from django.db import connection

from relay import rows
from relay.rows import Row

_POOL_SIZE = 4  # of a pool that is not told how large to be


class Deleter:
    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._batch: Sequence[Row] = ()
        self._under_way: Future[None] | None = None
        self._may_delete = False
        self._thread: ThreadPoolExecutor | None = None
        if connection.vendor == "postgresql" and _connections_at_most() > 1:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="deletes")

    @property
    def is_busy(self) -> bool:
        """One is under way, or has ended and `deleted()` has yet to tell of it."""
        return self._under_way is not None

    def make_sure(self) -> None:
        """Delete nothing, before anything is published and after a delete has failed: what could
        not be deleted would be published again by the next relay. PostgreSQL checks rights and
        replica identity before it looks for rows.

        Raises:
            what every delete would raise.
        """
        if not self._may_delete:
            rows.delete_nothing(self._owner)
            self._may_delete = True

    def start(self, batch: Sequence[Row], held: Mapping[int, int]) -> None:
        """Only while it is not busy.

        Args:
            held: the lanes, each with its epoch; what is in others stays.
        """
        self._batch = batch
        if self._thread is None:
            self._may_delete = False
            rows.delete(batch, held, self._owner)
            self._may_delete = True
            self._under_way = Future()
            self._under_way.set_result(None)
        else:
            self._under_way = self._thread.submit(self._delete, batch, dict(held))

    def deleted(self, *, timeout: float | None = 0) -> Sequence[Row]:
        """The rows that have been deleted for good since the last call.

        Args:
            timeout: seconds to wait for the one that is under way; None: until it has ended.

        Raises:
            what the delete has raised.
        """
        if self._under_way is None:
            return ()
        wait([self._under_way], timeout)
        if not self._under_way.done():
            return ()
        ended, self._under_way = self._under_way, None
        self._may_delete = ended.exception() is None
        ended.result()
        return self._batch

    def close(self) -> None:
        """Wait for the one that is under way."""
        if self._thread is not None:
            self._thread.submit(_disconnect)
            self._thread.shutdown()

    def _delete(self, batch: Sequence[Row], held: Mapping[int, int]) -> None:
        try:
            rows.delete(batch, held, self._owner)
        except BaseException:
            connection.close()
            raise


def _connections_at_most() -> float:
    """How many connections this process may have, as psycopg_pool reckons it."""
    pool = connection.settings_dict["OPTIONS"].get("pool")
    options = pool if isinstance(pool, dict) else {}
    fewest = options.get("min_size", _POOL_SIZE)
    return (options.get("max_size") or fewest) if pool else math.inf


def _disconnect() -> None:
    """The thread in which it runs: each has a connection of its own."""
    connection.close()
