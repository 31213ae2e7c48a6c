"""Run sagas side by side, on one event loop and a few threads."""

import asyncio
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from datetime import timedelta
from typing import Any
from uuid import UUID

from saga_runtime import project_settings
from saga_runtime.correlation import Correlation, correlated
from saga_runtime.database_errors import AWAY
from saga_runtime.database_threads import NoThreadLeft
from saga_runtime.event_loop import run_loop
from saga_runtime.logs import get_logger
from saga_runtime.waits import until_set
from sagas.crash_points import Point, reach
from sagas.definition.current_step import current_place
from sagas.definition.hooks import Ending, SagaOutcome
from sagas.definition.registry import max_concurrent, saga_type
from sagas.definition.saga_types import SagaType
from sagas.errors import Suspended, WorkerUnwell
from sagas.failures import stand_in
from sagas.journal import writing
from sagas.journal.entries import Entry, Verdict
from sagas.journal.new_sagas import ClaimNew
from sagas.journal.records import Claimed
from sagas.run.closing import Parking
from sagas.run.resources import RunResources
from sagas.run.saga_run import SagaRun
from sagas.run.timing import Timing
from sagas.worker.claiming import Claiming
from sagas.worker.health import Health
from sagas.worker.leases import Leases
from sagas.worker.places import Places
from sagas.worker.pools import Pools
from sagas.worker.suspects import Suspects

logger = get_logger(__name__)

MAX_TAKEOVERS = 10
HOOK_TAKEOVERS = 3
"""Takeovers beyond the maximum that an on_park hook may cost."""


class Executor:
    """Claim sagas, and run up to `concurrency` sagas at a time.

    Args:
        concurrency: how many at once.
        timing: of the worker.
        journal_threads: how many there are for local steps, each with a database connection.
        call_threads: how many there are for `call_in_thread`, each with a database connection.
        max_takeovers: how many workers in a row a saga may lose without progress before it parks.
        only: the id of the only saga to run.
        alive: called in each round.
        write: writes entries of several sagas in a single transaction.
        chance: 0 to 1, as `random.random()`.

    Attributes:
        suspect_from: how many lost workers make a saga a suspect, to be run alone.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        journal_threads: int = 4,
        call_threads: int = 8,
        max_takeovers: int = MAX_TAKEOVERS,
        only: UUID | None = None,
        alive: Callable[[], None] = lambda: None,
        write: Callable[[Sequence[Entry]], list[Verdict]] = writing.write,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._alive = alive
        self._timing = timing
        self._max_takeovers = max_takeovers
        self.suspect_from = max(2, max_takeovers // 2)
        worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"[:64]
        calls = min(call_threads, concurrency)
        pools = self._pools = Pools(
            journal=min(journal_threads, concurrency), calls=calls, write=write
        )
        self._resources = RunResources(
            journal=pools.journal,
            calls=pools.calls,
            group=pools.group,
            timing=timing,
            jitter=chance,
            commits_together=project_settings.commits_together(),
        )
        self._health = Health(
            journal=pools.journal,
            calls=pools.calls,
            abandoned_calls=self._resources.abandoned_calls,
            most_abandoned=2 * calls,
            patience=timing.unwell_patience,
        )
        self._leases = Leases(
            worker=worker, threads=pools.leases, lease=timing.lease, held=self._running_ids
        )
        suspects = Suspects(
            worker=worker,
            threads=pools.leases,
            timing=timing,
            suspect_from=self.suspect_from,
            chance=chance,
        )
        self._claiming = Claiming(
            worker=worker,
            threads=pools.leases,
            timing=timing,
            concurrency=concurrency,
            suspects=suspects,
            suspect_from=self.suspect_from,
            only=only,
        )
        self._worker = worker
        self._places = Places(concurrency)
        self._has_released = False
        self._running: dict[asyncio.Task[None], tuple[Claimed, SagaRun | Parking]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = Context()
        self._woken = asyncio.Event()

    @property
    def has_claimed(self) -> bool:
        """Tell whether the database has answered a claim."""
        return self._claiming.has_claimed

    def wake(self) -> None:
        """Wake the worker to claim something new. Call it from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            with suppress(RuntimeError):  # closed just now
                loop.call_soon_threadsafe(self._woken.set)

    def reserve(self, most: int) -> ClaimNew | None:
        """Reserve places for sagas that are being inserted; call it from any thread.

        Returns:
            How to claim them; None where no place is free, or where older sagas wait.
        """
        taken = self._places.reserve(most) if self._claiming.takes_new else 0
        if not taken:
            return None
        lease = timedelta(seconds=self._timing.lease)
        return ClaimNew(self._worker, lease, most=taken, but=max_concurrent().keys())

    def hand_over(self, claimed: Sequence[Claimed], *, reserved: int, waiting: int) -> None:
        """Start sagas that were claimed with their insert; call it from any thread."""
        loop = self._loop
        if reserved and loop is not None:
            with suppress(RuntimeError):  # closed just now: the leases run out
                loop.call_soon_threadsafe(self._start_reserved, claimed, reserved)
        if waiting:
            self._claiming.note_waiting()
            self.wake()

    def _start_reserved(self, claimed: Sequence[Claimed], reserved: int) -> None:
        # Of a worker that is to stop they are released with the others.
        started = 0
        try:
            for each in claimed if self._places.is_open else ():
                self._start(each)
                started += 1
        finally:
            self._places.free(reserved - started)
            if not self._places.is_open:
                self._has_released = False
            # Who waits for room, or for the end of all reservations, is to look again.
            if started < reserved:
                self._woken.set()

    def run(self, stop: threading.Event) -> None:
        """Claim and run sagas until `stop` is set, then finish or hand over the running sagas.

        Raises:
            WorkerUnwell: the worker ends early, as calls of steps do not return.
        """
        run_loop(self._main(stop), last_seconds=self._timing.loop_end)

    async def _main(self, stop: threading.Event) -> None:
        self._loop, self._context = asyncio.get_running_loop(), copy_context()
        renewing = asyncio.create_task(self._leases.keep())
        try:
            try:
                await self._claim_until(stop)
            # A worker that ends unwell hands over too, and ends, whatever call comes back by then.
            finally:
                await self._finish_running()
        # Renewed until the last saga has stopped: a lease lost in the grace would be a takeover.
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            self._pools.close(timeout=self._timing.close_timeout)

    async def _claim_until(self, stop: threading.Event) -> None:
        """Claim and start sagas until `stop` is set.

        Raises:
            WorkerUnwell: calls of steps do not return.
        """
        while not stop.is_set():
            self._places.open(is_open=not self._health.is_unwell())
            if not self._places.is_open:
                if self._health.is_hopeless:
                    raise WorkerUnwell(f"this worker ends, unwell: {self._health.describe_stuck()}")
                await self._hand_over_once()
                await self._wait(self._timing.longest_poll)
                continue
            self._has_released = False
            self._alive()
            await self._wait(await self._claim_once())

    async def _claim_once(self) -> float:
        """Claim and start sagas; return the seconds until the next claim."""
        room = self._places.take_all()
        started = 0
        try:
            # A suspect runs alone: not beside sagas that are being inserted, either.
            is_idle = not self._running and room == self._places.count
            found = await self._claiming.claim(room, is_idle=is_idle)
            for claimed in found.sagas:
                self._start(claimed)
                started += 1
        finally:
            self._places.free(room - started)
        return found.pause

    async def _hand_over_once(self) -> None:
        """Release all leases, once nothing runs any more."""
        if not self._places.taken and not self._has_released:
            with suppress(*AWAY):  # the leases run out all the same
                await self._leases.release()
                self._has_released = True

    async def _wait(self, pause: float) -> None:
        """Wait until a saga ended, `wake()` was called, or so many seconds have passed."""
        await until_set(self._woken, pause)
        self._woken.clear()

    def _running_ids(self) -> list[UUID]:
        return [claimed.id for claimed, _ in self._running.values()]

    def _start(self, claimed: Claimed) -> None:
        """Run a claimed saga in a new task, or park a saga that cannot be run."""
        reach(Point.CLAIMED)
        self._leases.note_claimed(claimed.id)
        found = saga_type(claimed.name, claimed.version)
        unfit = claimed.unreadable or _misfit(claimed, found) or self._cost_too_many(claimed)
        run: SagaRun | Parking
        if found is not None and not unfit:
            run = SagaRun(claimed, found, self._resources)
            task = self._begin(self._guard(claimed, run.execute))
        else:
            run = parking = Parking(claimed, self._resources)
            task = self._begin(self._guard(claimed, lambda: self._park(claimed, parking, unfit)))
        self._running[task] = (claimed, run)
        task.add_done_callback(self._ended)

    def _begin(self, guarded: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        # In the worker's context: what the inbox's thread has set is none of the saga's.
        return asyncio.create_task(guarded, context=self._context.copy())

    def _ended(self, task: asyncio.Task[None]) -> None:
        claimed, run = self._running.pop(task)
        # The call may yet commit under this epoch; a lease that runs out counts as a takeover, and
        # takeovers park a saga that hangs in each worker.
        if run.hangs:
            self._leases.let_run_out(claimed.id)
        self._places.free()
        if self._claiming.wants_an_end or not self._places.is_open:
            self._woken.set()

    def _cost_too_many(self, claimed: Claimed) -> str:
        """Return why a saga is not run again, where the saga has cost too many workers."""
        if claimed.takeovers <= self._max_takeovers:
            return ""
        return f"{claimed.takeovers} workers in a row died or stalled with it and got no further"

    async def _guard(
        self, claimed: Claimed, execute: Callable[[], Coroutine[Any, Any, Ending | None]]
    ) -> None:
        """Run a saga; no error of the saga ends the worker or other sagas."""
        current_place.set("a saga")  # in this task, and what it calls
        with correlated(Correlation(claimed.correlation_id, claimed.traceparent)):
            began = time.monotonic()
            try:
                ending = await execute()
            except (Suspended, NoThreadLeft) as reason:
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

    async def _park(self, claimed: Claimed, parking: Parking, reason: str) -> Ending:
        """Park a saga that cannot be run."""
        outcome = SagaOutcome(
            saga_id=claimed.id,
            name=claimed.name,
            key=claimed.key,
            ending=Ending.PARKED,
            context=claimed.context_so_far,
            reason=reason,
        )
        # A hook that hangs would cost each worker a thread, and the saga would never be parked.
        with_hook = claimed.takeovers < self._max_takeovers + HOOK_TAKEOVERS
        await parking.park(outcome, with_hook=with_hook)
        return Ending.PARKED

    async def _finish_running(self) -> None:
        """Let running sagas finish within the grace, and hand over the rest."""
        self._places.open(is_open=False)
        await self._until_nothing_is_reserved()
        # First the runs that wait stop, and steps may go on to the next ones; after the grace every
        # run stops behind its step.
        if self._running:
            logger.info("finishing %d saga(s)", len(self._running))
            for _, run in self._running.values():
                run.hurry()
            await asyncio.wait(self._running, timeout=self._timing.grace)
        for _, run in list(self._running.values()):
            if isinstance(run, SagaRun):
                run.suspend("the worker is stopping")
        if self._running:
            await asyncio.wait(self._running, timeout=self._timing.grace)
        await self._until_nothing_is_reserved()
        await self._leases.release_at_the_end()

    async def _until_nothing_is_reserved(self) -> None:
        """Wait, for a while, for sagas that are claimed with their insert just now.

        They are to be released with the others.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timing.close_timeout):
                while self._places.taken > len(self._running):
                    await self._woken.wait()
                    self._woken.clear()


def _misfit(claimed: Claimed, found: SagaType | None) -> str:
    """Return why the registered class cannot run a saga; empty where the class can."""
    if found is None:
        return f"no saga named {claimed.name} with version {claimed.version} is registered here"
    if claimed.steps and claimed.definition_hash != found.definition_hash:
        return (
            f"the steps of {claimed.name} are no longer those with which it began: "
            "give the changed class a new version"
        )
    return ""
