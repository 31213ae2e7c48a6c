"""Make the threads of a worker, each with a database connection."""

from collections.abc import Callable, Sequence

from saga_runtime.database_threads import Threads, close_all
from sagas.journal import writing
from sagas.journal.entries import Entry, Verdict
from sagas.journal.group_commit import GroupCommit


class Pools:
    """Keep the threads of a worker.

    Args:
        journal: how many there are for local steps.
        calls: how many there are for `call_in_thread`; as many again replace stuck threads.
        write: writes entries in a single transaction.

    Attributes:
        journal: for local steps, and for statements outside group commit.
        calls: for `call_in_thread`.
        leases: a single thread, so that sagas are claimed and leases renewed also while every step
            waits for a lock.
        group: group commit, on a separate thread.
    """

    def __init__(
        self,
        *,
        journal: int,
        calls: int,
        write: Callable[[Sequence[Entry]], list[Verdict]] = writing.write,
    ) -> None:
        self.journal = Threads(journal, name="journal")
        self.calls = Threads(calls, name="calls", spare=calls)
        self.leases = Threads(1, name="leases")
        self._group_thread = Threads(1, name="group")
        self.group = GroupCommit(self._group_thread, write=write)

    def close(self, *, timeout: float) -> None:
        """End the threads within so many seconds; stuck threads are abandoned.

        Call it in the event loop's own thread: steps may have filled the threads of
        `asyncio.to_thread`.
        """
        close_all((self.leases, self._group_thread, self.journal, self.calls), timeout=timeout)
