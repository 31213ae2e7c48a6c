"""Claims sagas and runs them side by side, on one event loop and a few threads."""

import asyncio
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from saga_runtime.abandoned_calls import AbandonedCalls
from saga_runtime.correlation import Correlation, correlated
from saga_runtime.database_errors import AWAY
from saga_runtime.database_threads import NoThreadLeft, Threads, close_all
from saga_runtime.event_loop import run_loop
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage
from saga_runtime.text import one_line_error
from saga_runtime.waits import until_set
from sagas.crash_points import Point, reach
from sagas.definition.current_step import current_place
from sagas.definition.hooks import Ending, SagaOutcome
from sagas.definition.registry import max_concurrent, saga_type
from sagas.definition.saga_types import SagaType
from sagas.errors import LeaseLost, Suspended, WorkerUnwell
from sagas.failures import stand_in
from sagas.journal import claims
from sagas.journal.group_commit import GroupCommit
from sagas.journal.records import Claimed
from sagas.run.closing import Closing
from sagas.run.journal_writer import Writer
from sagas.run.saga_run import SagaRun
from sagas.run.state import RunState

logger = get_logger(__name__)

SHORTEST_POLL = 0.02
LONGEST_POLL = 0.5
PATIENCE = 0.1  # seconds that a claim waits for room for many
GRACE = 20.0
UNWELL_PATIENCE = 30.0
"""Seconds that an unwell worker waits for a call to come back before it ends."""
CLOSE_SECONDS = 2.0
MAX_TAKEOVERS = 10
SUSPECTS_EVERY = 1.0
HOOK_TAKEOVERS = 3  # that an on_park hook may cost
MOST_NAMED = 5  # steps in the line that tells what hangs


class Executor:
    """Runs up to `concurrency` sagas at a time.

    Args:
        concurrency: how many at once.
        lease: how long a saga stays this worker's without a sign of life.
        grace: seconds that running sagas have to finish once `stop` is set; then they are handed
            over after the step that runs.
        journal_threads, call_threads: for the journal and for `call_in_thread`, each with a
            database connection of its own.
        max_takeovers: how many workers a saga may lose in a row without getting on; then it parks.
        patience: seconds that it waits for a thread to come back where all are stuck; then it
            hands its sagas over and ends.
        only: the id of the saga to run, and no other.
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
        max_takeovers: int = MAX_TAKEOVERS,
        patience: float = UNWELL_PATIENCE,
        only: UUID | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._alive = alive
        self.has_claimed = False
        """The database has let it look for sagas."""
        self._concurrency = concurrency
        self._lease = lease
        self._grace = grace
        self._journal_thread_count = min(journal_threads, concurrency)
        self._call_thread_count = min(call_threads, concurrency)
        self._max_takeovers = max_takeovers
        self._suspect_from = max(2, max_takeovers // 2)
        self._only = only
        self._patience = patience
        self._unwell_since: float | None = None
        self._has_released = False
        self._hanging: set[UUID] = set()
        self._alone = False
        self._runs_suspect = False
        self._alone_since = 0.0
        self._parking: set[RunState] = set()
        self._suspects_due = 0.0
        self._waiting_since = 0.0
        self._worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"[:64]
        self._running: dict[asyncio.Task[None], tuple[Claimed, SagaRun | None]] = {}
        self._outage = Outage("the database", logger=logger)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is something new to claim. Safe to call from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            with suppress(RuntimeError):  # closed just now
                loop.call_soon_threadsafe(self._woken.set)

    def run(self, stop: threading.Event) -> None:
        """Claim and run sagas until `stop` is set, then finish or hand over what runs.

        Raises:
            WorkerUnwell: it has ended by itself, as what its steps call does not come back.
        """
        run_loop(self._main(stop))

    async def _main(self, stop: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._journal = Threads(self._journal_thread_count, name="journal")
        self._calls = Threads(self._call_thread_count, name="calls", spare=self._call_thread_count)
        # Sagas are claimed and leases renewed also while every step waits for a lock.
        self._leases = Threads(1, name="leases")
        self._group_thread = Threads(1, name="group")
        self._group = GroupCommit(self._group_thread)
        self._abandoned_calls = AbandonedCalls()
        renewing = asyncio.create_task(self._renew_leases())
        try:
            try:
                await self._claim_until(stop)
            finally:  # a worker that ends unwell hands over too, and stays so, whatever comes back
                await self._finish_running()
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            # Not by `asyncio.to_thread`: steps may have filled its threads.
            pools = (self._leases, self._group_thread, self._journal, self._calls)
            close_all(pools, timeout=CLOSE_SECONDS)

    async def _claim_until(self, stop: threading.Event) -> None:
        pause = SHORTEST_POLL
        wanted = 1
        patient_until = 0.0
        while not stop.is_set():
            if await self._is_unwell():
                if self._is_hopeless():
                    raise WorkerUnwell(f"this worker ends, unwell: {self._stuck()}")
                await self._wait(LONGEST_POLL)
                continue
            self._alive()
            room = self._concurrency - len(self._running)
            # Where more of them wait, they are claimed many at a time; but those that run may take
            # long, and the room beside them is not left empty for it.
            if room >= wanted or (room and time.monotonic() >= patient_until):
                claimed = await self._claim(room)
                for saga in claimed:
                    self._start(saga)
                wanted = max(1, self._concurrency // 4) if len(claimed) == room else 1
                patient_until = time.monotonic() + PATIENCE
                pause = SHORTEST_POLL if claimed else min(pause * 1.5, LONGEST_POLL)
            else:
                pause = PATIENCE if room else LONGEST_POLL
            await self._wait(pause)

    async def _is_unwell(self) -> bool:
        """Whether no step can call anything any more. Then the worker hands over what it runs,
        claims nothing, and shows no sign of life; after a while it ends."""
        if not self._is_exhausted():
            if self._unwell_since is not None:
                logger.warning("a call has come back: this worker claims sagas again")
            self._unwell_since, self._has_released = None, False
            return False
        if self._unwell_since is None:
            self._unwell_since = time.monotonic()
            logger.error(
                "this worker is unwell and hands its sagas over: %s. It ends in %.0f s if no call "
                "comes back. Give what these steps call a timeout of its own",
                *(self._stuck(), self._patience),
            )
        # What runs is let fail or end: a step that has timed out must have spent its retry, or it
        # would go from worker to worker. One that needs a thread is left.
        self._calls.refuse_waiting()
        self._journal.refuse_waiting()
        if not self._running and not self._has_released and not self._is_hopeless():
            with suppress(*AWAY):  # their leases run out all the same
                await self._release()
                self._has_released = True
        return True

    def _is_exhausted(self) -> bool:
        too_many_deaf = len(self._abandoned_calls.steps) >= 2 * self._call_thread_count
        return self._journal.is_exhausted or self._calls.is_exhausted or too_many_deaf

    def _is_hopeless(self) -> bool:
        since = self._unwell_since
        return since is not None and time.monotonic() - since >= self._patience

    def _stuck(self) -> str:
        """What does not come back, as a person says it."""
        steps = [*self._journal.stuck, *self._calls.stuck, *self._abandoned_calls.steps]
        more = f" and {len(steps) - MOST_NAMED} more" if len(steps) > MOST_NAMED else ""
        return f"what these steps call does not come back: {'; '.join(steps[:MOST_NAMED])}{more}"

    async def _release(self) -> None:
        await self._leases.run(claims.release, worker=self._worker, but=self._hanging)

    async def _claim(self, room: int) -> list[Claimed]:
        try:
            suspect = await self._claim_suspect()
            if suspect or self._alone:
                claimed = suspect
            else:
                claimed = await self._leases.run(
                    claims.claim,
                    worker=self._worker,
                    limit=room,
                    lease=self._lease,
                    at_most=max_concurrent(),
                    only=self._only,
                    suspect_from=self._suspect_from,
                )
        except AWAY as error:
            await asyncio.sleep(self._outage.failed(error))
            return []
        self._outage.over()
        self.has_claimed = True
        return claimed

    async def _claim_suspect(self) -> list[Claimed]:
        """A saga that may kill this worker has it for itself: nothing is claimed beside it, and it
        is claimed when nothing runs any more. In between the others have their turn."""
        now = time.monotonic()
        if self._runs_suspect and not self._running:
            self._runs_suspect = self._alone = False
            self._suspects_due = now + SUSPECTS_EVERY
        elif self._runs_suspect and now - self._alone_since > self._lease.total_seconds():
            self._runs_suspect = self._alone = False  # it may hang: the others do not wait for that
            self._suspects_due = self._after_the_others(now)
        is_soon = now < self._suspects_due and (self._running or not self._alone)
        if self._only is not None or self._runs_suspect or is_soon:
            return []
        self._suspects_due = now + SUSPECTS_EVERY
        if self._running:
            await self._look_for_suspect(now)
            return []
        claimed = await self._leases.run(
            claims.claim_suspect,
            worker=self._worker,
            lease=self._lease,
            at_most=max_concurrent(),
            suspect_from=self._suspect_from,
        )
        self._alone = self._runs_suspect = bool(claimed)
        self._alone_since = time.monotonic()
        return claimed

    async def _look_for_suspect(self, now: float) -> None:
        """Claim nothing more while there is one, until all that runs has ended; but not for longer
        than a lease, and then not again for two."""
        found = await self._leases.run(
            claims.is_there_a_suspect, at_most=max_concurrent(), suspect_from=self._suspect_from
        )
        if not self._alone:
            self._waiting_since = now
        lease = self._lease.total_seconds()
        if found and now - self._waiting_since > lease:
            found = False
            self._suspects_due = self._after_the_others(now)
        self._alone = found

    def _after_the_others(self, now: float) -> float:
        """When the next suspect has its turn; not at the same moment in each worker."""
        return now + self._lease.total_seconds() * (1 + 2 * random.random())  # noqa: S311 - no secret

    async def _wait(self, pause: float) -> None:
        """Until there may be something to claim: a saga ended, wake() was called, or time is up."""
        await until_set(self._woken, pause)
        self._woken.clear()

    def _start(self, claimed: Claimed) -> None:
        reach(Point.CLAIMED)
        self._hanging.discard(claimed.id)
        found = saga_type(claimed.name, claimed.version)
        unfit = claimed.unreadable or _misfit(claimed, found) or self._exhausted(claimed)
        run = None
        if found is not None and not unfit:
            run = SagaRun(
                claimed,
                found,
                group=self._group,
                journal_threads=self._journal,
                call_threads=self._calls,
                abandoned_calls=self._abandoned_calls,
            )
        task = asyncio.create_task(self._execute(claimed, run, unfit))
        self._running[task] = (claimed, run)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        claimed, run = self._running.pop(task)
        if run is not None and run.hangs:
            self._hanging.add(claimed.id)
        self._woken.set()

    def _exhausted(self, claimed: Claimed) -> str:
        """Why a saga is not run once more, where it has cost too many workers their life."""
        if claimed.takeovers <= self._max_takeovers:
            return ""
        return f"{claimed.takeovers} workers in a row died or stalled with it and got no further"

    async def _execute(self, claimed: Claimed, run: SagaRun | None, unfit: str) -> None:
        current_place.set("a saga")  # in this task, and what it calls
        with correlated(Correlation(claimed.correlation_id, claimed.traceparent)):
            began = time.monotonic()
            try:
                ending = await (run.execute() if run else self._park(claimed, unfit))
            except (Suspended, LeaseLost, NoThreadLeft) as reason:
                logger.info("%s %s stops here: %s", claimed.name, claimed.key, reason)
                return
            except asyncio.CancelledError:  # with the loop
                raise
            except BaseException as error:
                logger.exception(
                    "%s %s: an error outside its steps; a worker will take the saga up again",
                    *(claimed.name, claimed.key),
                    exc_info=stand_in(error),
                )
                return
            took = time.monotonic() - began
            logger.info("%s %s: %s in %.3f s", claimed.name, claimed.key, ending or "left", took)

    async def _park(self, claimed: Claimed, reason: str) -> Ending:
        outcome = SagaOutcome(
            saga_id=claimed.id,
            name=claimed.name,
            key=claimed.key,
            ending=Ending.PARKED,
            context=claimed.context,
            reason=reason,
        )
        state = RunState(claimed)
        self._parking.add(state)
        writer = Writer(state, group=self._group, threads=self._journal)
        # A hook that hangs would cost each worker a thread, and the saga would never be parked.
        with_hook = claimed.takeovers < self._max_takeovers + HOOK_TAKEOVERS
        try:
            await Closing(claimed, writer).park(outcome, with_hook=with_hook)
        finally:
            self._parking.discard(state)
            if state.hangs:
                self._hanging.add(claimed.id)
        return Ending.PARKED

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            ids = [claimed.id for claimed, _ in self._running.values()]
            if not ids:
                continue
            try:
                await self._leases.run(
                    claims.renew, worker=self._worker, ids=ids, lease=self._lease
                )
            except Exception as error:  # noqa: BLE001 - all leases depend on it
                logger.warning("leases not renewed: %s", one_line_error(error))

    async def _finish_running(self) -> None:
        if self._running:
            logger.info("finishing %d saga(s)", len(self._running))
            for _, run in self._running.values():
                if run is not None:
                    run.hurry()
            for state in self._parking:
                state.hurry.set()
            await asyncio.wait(self._running, timeout=self._grace)
        for _, run in list(self._running.values()):
            if run is not None:
                run.suspend("the worker is stopping")
        if self._running:
            await asyncio.wait(self._running, timeout=self._grace)
        try:
            await self._release()
        except AWAY as error:
            logger.warning("leases not released, they run out: %s", one_line_error(error))


def _misfit(claimed: Claimed, found: SagaType | None) -> str:
    """Why a saga cannot be run by the class that is registered; empty where it can."""
    if found is None:
        return f"no saga named {claimed.name} with version {claimed.version} is registered here"
    if claimed.steps and claimed.definition_hash != found.definition_hash:
        return (
            f"the steps of {claimed.name} are no longer those with which it began: "
            "give the changed class a new version"
        )
    return ""
