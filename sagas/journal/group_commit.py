"""Commit entries in groups: parallel sagas share the transactions for their entries."""

import asyncio
from collections.abc import Callable, Sequence

from saga_runtime.database_errors import AWAY, is_outage
from saga_runtime.database_threads import Threads
from sagas.failures import raisable
from sagas.journal import writing
from sagas.journal.entries import Entry, Verdict

MAX_GROUP = 200
"""Entries of a transaction, unless the caller says otherwise."""

_Results = list[Verdict | Exception]


class GroupCommit:
    """Collect entries while a transaction is under way, and write all in the next.

    Args:
        threads: where groups are written, a group at a time.
        max_group: the most entries of a transaction.
        write: writes a group in a single transaction.
    """

    def __init__(
        self,
        threads: Threads,
        *,
        write: Callable[[Sequence[Entry]], list[Verdict]] = writing.write,
        max_group: int = MAX_GROUP,
    ) -> None:
        self._threads = threads
        self._write = write
        self._max_group = max_group
        self._waiting: list[tuple[Entry, asyncio.Future[Verdict]]] = []
        self._under_way: list[tuple[Entry, asyncio.Future[Verdict]]] = []
        self._writer: asyncio.Task[None] | None = None

    def put(self, entry: Entry) -> asyncio.Future[Verdict]:
        """Hand in an entry, for the next group.

        Returns:
            A future of the verdict, done once the group's transaction is through. The future has a
            django.db.Error where the entry is not written, or where the commit's answer was lost.
        """
        written: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
            self._writer.add_done_callback(self._ended)
        return written

    def _ended(self, writer: asyncio.Task[None]) -> None:
        """Cancel all futures where the loop ends: a run waiting in `finally` must not hang."""
        if writer.cancelled():
            for _, written in [*self._under_way, *self._waiting]:
                written.cancel()

    async def _write_all(self) -> None:
        # What is handed in during a transaction is the next group: the longer a commit takes, the
        # more sagas share the next one.
        while self._waiting:
            group = self._under_way = self._waiting[: self._max_group]
            del self._waiting[: self._max_group]
            try:
                results = await self._threads.run(self._write_group, [entry for entry, _ in group])
            except asyncio.CancelledError:  # with the loop
                raise
            except BaseException as error:  # noqa: BLE001 - each writer must hear of it
                results = [raisable(error)] * len(group)
            for (_, written), result in zip(group, results, strict=True):
                # Cancelled: the saga's task has ended, and nobody waits for the verdict.
                if written.done():
                    continue
                if isinstance(result, Exception):
                    written.set_exception(result)
                else:
                    written.set_result(result)

    def _write_group(self, entries: list[Entry]) -> _Results:
        """Write entries together, or each alone where a single entry has spoilt the group."""
        try:
            return [*self._write(entries)]
        except Exception as error:  # noqa: BLE001 - the others must not suffer for one
            # Alone they would fare no better while the database is away.
            if len(entries) == 1 or (isinstance(error, AWAY) and is_outage(error)):
                return [error] * len(entries)
        return [result for entry in entries for result in self._write_group([entry])]
