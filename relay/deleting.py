"""Delete acknowledged rows, where possible in a separate thread.

Meanwhile the next batch is read and published.

Invariants:
- Only one delete runs at a time.
- Until a delete is known to have committed, the rows count as in flight: no read finds these
  rows, and their keys are not parked.
- The effect of a failed delete is unknown. The rows are deleted again.
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
        """Tell whether a delete runs, or has ended and is yet to be taken by `take_deleted()`."""
        return self._running is not None

    def make_sure(self) -> None:
        """Delete no row, before anything is published and after a delete has failed.

        Rows that cannot be deleted would be published again by the next relay.

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
            held: the relay's lanes, each with the epoch of the claim; rows of further lanes stay.
        """
        self._batch = batch
        if self._thread is None:
            # Right here; until the delete has succeeded, nothing more may be published.
            self._may_delete = False
            self._store.delete(batch, held)
            self._may_delete = True
            self._running = Future()
            self._running.set_result(None)
        else:
            # A copy of the lanes, which the relay may lose or claim while the thread deletes.
            self._running = self._thread.submit(self._delete, batch, dict(held))

    def take_deleted(self, *, timeout: float | None = 0) -> Sequence[Row]:
        """Return the rows deleted for good since the last call.

        Args:
            timeout: seconds to wait for the running delete; None waits until the end.

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
        """Wait for the running delete, and end the thread."""
        if self._thread is not None:
            self._thread.submit(_disconnect)
            self._thread.shutdown()

    def _delete(self, batch: Sequence[Row], held: Mapping[int, int]) -> None:
        try:
            self._store.delete(batch, held)
        except BaseException:
            # The connection may be broken, and nobody else closes that of this thread.
            connection.close()
            raise


def _disconnect() -> None:
    """Close the connection of the calling thread: each thread has a connection."""
    connection.close()
