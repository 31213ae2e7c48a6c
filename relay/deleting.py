"""Deletes what the broker has acknowledged, where possible in a thread of its own.

Meanwhile the next batch is read and published.

Invariants:
- There is one delete at a time.
- Until a delete is known to have committed, its rows count as in flight: no read finds them, and no
  key of theirs is parked.
- After a delete that failed nobody knows what it did. Its rows are deleted again.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from django.db import connection

from relay.store import Row, Store


class Deleter:
    """Delete one batch after the other.

    Args:
        store: whether a thread is possible, the store says too.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._batch: Sequence[Row] = ()
        self._running: Future[None] | None = None
        self._may_delete = False
        self._thread: ThreadPoolExecutor | None = None
        if store.deletes_beside_reads:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="deletes")

    @property
    def is_busy(self) -> bool:
        """Tell whether a delete runs, or has ended and `take_deleted()` has yet to return it."""
        return self._running is not None

    def make_sure(self) -> None:
        """Delete no row, before anything is published and after a delete has failed.

        What could not be deleted would be published again by the next relay.

        Raises:
            django.db.Error: every delete would raise the same.
        """
        if not self._may_delete:
            self._store.try_delete()
            self._may_delete = True

    def start(self, batch: Sequence[Row], held: Mapping[int, int]) -> None:
        """Delete a batch; only while no delete runs.

        Args:
            batch: the rows.
            held: the relay's lanes, each with its epoch; rows of other lanes stay.
        """
        self._batch = batch
        if self._thread is None:
            self._may_delete = False
            self._store.delete(batch, held)
            self._may_delete = True
            self._running = Future()
            self._running.set_result(None)
        else:
            self._running = self._thread.submit(self._delete, batch, dict(held))

    def take_deleted(self, *, timeout: float | None = 0) -> Sequence[Row]:
        """Return the rows that have been deleted for good since the last call.

        Args:
            timeout: seconds to wait for the delete that runs; None waits until its end.

        Raises:
            django.db.Error: the delete has failed.
        """
        if self._running is None:
            return ()
        wait([self._running], timeout)
        if not self._running.done():
            return ()
        ended, self._running = self._running, None
        self._may_delete = ended.exception() is None
        ended.result()
        return self._batch

    def close(self) -> None:
        """Wait for the delete that runs, and end the thread."""
        if self._thread is not None:
            self._thread.submit(_disconnect)
            self._thread.shutdown()

    def _delete(self, batch: Sequence[Row], held: Mapping[int, int]) -> None:
        try:
            self._store.delete(batch, held)
        except BaseException:
            connection.close()
            raise


def _disconnect() -> None:
    """Close the connection of the thread that calls: each thread has its own."""
    connection.close()
