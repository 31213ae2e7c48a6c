"""Claims sagas and runs them side by side, on one event loop and a few threads."""

import asyncio
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta

from brokers.outage import Outage
from outbox.away import AWAY
from outbox.correlation import Correlation, correlated
from sagas import journal
from sagas.errors import LeaseLost
from sagas.hooks import Ending
from sagas.journal import Claimed
from sagas.registry import SagaType, saga_type
from sagas.run import SagaRun, Suspended
from sagas.threads import Threads

logger = logging.getLogger(__name__)

SHORTEST_POLL = 0.02
LONGEST_POLL = 0.5
GRACE = 20.0


class Executor:
    """Runs up to `concurrency` sagas at a time.

    Args:
        concurrency: how many at once.
        lease: how long a saga stays this worker's without a sign of life.
        grace: seconds that running sagas have to finish once `stop` is set; then they are handed
            over after the step that runs.
        journal_threads, call_threads: for the journal and for `call_in_thread`, each with a
            database connection of its own.
        alive: called in each round.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        lease: timedelta,
        grace: float = GRACE,
        journal_threads: int = 4,
        call_threads: int = 8,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._alive = alive
        self._concurrency = concurrency
        self._lease = lease
        self._grace = grace
        self._journal_thread_count = min(journal_threads, concurrency)
        self._call_thread_count = min(call_threads, concurrency)
        self._worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"[:64]
        self._running: dict[asyncio.Task[None], tuple[Claimed, SagaRun | None]] = {}
        self._outage = Outage("the database", logger=logger)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is something new to claim. Safe to call from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._woken.set)

    def run(self, stop: threading.Event) -> None:
        """Claim and run sagas until `stop` is set, then finish or hand over what runs."""
        asyncio.run(self._main(stop))

    async def _main(self, stop: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._journal = Threads(self._journal_thread_count, name="journal")
        self._calls = Threads(self._call_thread_count, name="calls")
        # Leases are renewed also while every step waits for a lock.
        self._leases = Threads(1, name="leases")
        renewing = asyncio.create_task(self._renew_leases())
        try:
            await self._claim_until(stop)
            await self._finish_running()
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await asyncio.to_thread(self._leases.close)
            await asyncio.to_thread(self._journal.close)
            await asyncio.to_thread(self._calls.close)

    async def _claim_until(self, stop: threading.Event) -> None:
        pause = SHORTEST_POLL
        while not stop.is_set():
            self._alive()
            room = self._concurrency - len(self._running)
            claimed = await self._claim(room) if room else []
            for saga in claimed:
                self._start(saga)
            pause = SHORTEST_POLL if claimed else min(pause * 1.5, LONGEST_POLL)
            await self._wait(pause)

    async def _claim(self, room: int) -> list[Claimed]:
        try:
            claimed = await self._journal.run(
                journal.claim, worker=self._worker, limit=room, lease=self._lease
            )
        except AWAY as error:
            await asyncio.sleep(self._outage.failed(error))
            return []
        self._outage.over()
        return claimed

    async def _wait(self, pause: float) -> None:
        """Until there may be something to claim: a saga ended, wake() was called, or time is up."""
        waking = asyncio.create_task(self._woken.wait())
        watched = {waking, *self._running}
        await asyncio.wait(watched, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        waking.cancel()
        self._woken.clear()

    def _start(self, claimed: Claimed) -> None:
        found = saga_type(claimed.name)
        run = None
        if found is not None and not _misfit(claimed, found):
            run = SagaRun(claimed, found, journal_threads=self._journal, call_threads=self._calls)
        task = asyncio.create_task(self._execute(claimed, run))
        self._running[task] = (claimed, run)
        task.add_done_callback(self._running.pop)

    async def _execute(self, claimed: Claimed, run: SagaRun | None) -> None:
        with correlated(Correlation(claimed.correlation_id, claimed.traceparent)):
            began = time.monotonic()
            try:
                ending = await (run.execute() if run else self._park_misfit(claimed))
            except (Suspended, LeaseLost) as reason:
                logger.info("%s %s stops here: %s", claimed.name, claimed.key, reason)
                return
            except Exception:
                logger.exception("%s %s: will be taken up again", claimed.name, claimed.key)
                return
            took = time.monotonic() - began
            logger.info("%s %s: %s in %.3f s", claimed.name, claimed.key, ending or "left", took)

    async def _park_misfit(self, claimed: Claimed) -> Ending:
        reason = _misfit(claimed, saga_type(claimed.name))
        await self._journal.run(journal.finish, claimed, Ending.PARKED, claimed.context, reason)
        return Ending.PARKED

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            ids = [claimed.id for claimed, _ in self._running.values()]
            if not ids:
                continue
            try:
                await self._leases.run(
                    journal.renew, worker=self._worker, ids=ids, lease=self._lease
                )
            except AWAY as error:
                logger.warning("leases not renewed: %s", " ".join(str(error).split()))

    async def _finish_running(self) -> None:
        if self._running:
            logger.info("finishing %d saga(s)", len(self._running))
            for _, run in self._running.values():
                if run is not None:
                    run.hurry()
            await asyncio.wait(self._running, timeout=self._grace)
        for _, run in list(self._running.values()):
            if run is not None:
                run.suspend("the worker is stopping")
        if self._running:
            await asyncio.wait(self._running, timeout=self._grace)
        try:
            await self._journal.run(journal.release, worker=self._worker)
        except AWAY as error:
            logger.warning("leases not released, they run out: %s", " ".join(str(error).split()))


def _misfit(claimed: Claimed, found: SagaType | None) -> str:
    """Why a saga cannot be run by the class that is registered; empty where it can."""
    if found is None or found.version != claimed.version:
        return f"no saga named {claimed.name} with version {claimed.version} is registered here"
    if claimed.steps and claimed.definition_hash != found.definition_hash:
        return (
            f"the steps of {claimed.name} are no longer those with which it began: "
            "give the changed class a new version"
        )
    return ""
