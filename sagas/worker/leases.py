"""Keep the leases of a worker's sagas, and release them at the end."""

import asyncio
from collections.abc import Callable, Collection
from datetime import timedelta
from uuid import UUID

from saga_runtime.database_errors import AWAY
from saga_runtime.database_threads import Threads
from saga_runtime.logs import get_logger
from saga_runtime.text import one_line_error
from sagas.journal import claims

logger = get_logger(__name__)


class Leases:
    """Hold the leases of a worker.

    Args:
        worker: the worker's name.
        threads: to ask the database in; not shared with steps.
        lease: seconds.
        held: returns the ids of the running sagas.
    """

    def __init__(
        self,
        *,
        worker: str,
        threads: Threads,
        lease: float,
        held: Callable[[], Collection[UUID]],
    ) -> None:
        self._worker = worker
        self._threads = threads
        self._lease = lease
        self._held = held
        self._running_out: set[UUID] = set()

    async def keep(self) -> None:
        """Renew the leases of running sagas, each third of a lease, until the task is cancelled."""
        while True:
            # A third: two renewals in a row may fail before a lease runs out.
            await asyncio.sleep(self._lease / 3)
            ids = self._held()
            if not ids:
                continue
            try:
                await self._threads.run(
                    claims.renew,
                    worker=self._worker,
                    ids=ids,
                    lease=timedelta(seconds=self._lease),
                )
            except Exception as error:  # noqa: BLE001 - all leases depend on it
                logger.warning("leases not renewed: %s", one_line_error(error))

    def let_run_out(self, saga: UUID) -> None:
        """Leave a lease to run out: the takeover counts, and at last parks the saga."""
        self._running_out.add(saga)

    def note_claimed(self, saga: UUID) -> None:
        """Note a new lease."""
        self._running_out.discard(saga)

    async def release(self) -> None:
        """Release the leases, so that the sagas can be claimed at once.

        Raises:
            django.db.Error: the database is away; the leases run out.
        """
        await self._threads.run(claims.release, worker=self._worker, but=self._running_out)

    async def release_at_the_end(self) -> None:
        """Release the leases where the database answers; otherwise they run out."""
        try:
            await self.release()
        except AWAY as error:
            logger.warning("leases not released, they run out: %s", one_line_error(error))
