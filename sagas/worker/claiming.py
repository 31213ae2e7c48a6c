"""Decide when a worker claims sagas, and how many."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from saga_runtime.database_errors import AWAY
from saga_runtime.database_threads import Threads
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage
from sagas.definition.registry import max_concurrent
from sagas.journal import claims
from sagas.journal.records import Claimed
from sagas.run.timing import Timing
from sagas.worker.suspects import Suspects

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    """Hold the outcome of a round of claiming.

    Attributes:
        sagas: to be run now.
        pause: seconds until the next round, unless something happens before.
    """

    sagas: list[Claimed]
    pause: float


class Claiming:
    """Claim sagas for a worker.

    Args:
        worker: the worker's name.
        threads: to ask the database in.
        timing: of the worker.
        concurrency: how many sagas the worker runs at a time.
        suspects: claims the sagas that may kill the worker.
        suspect_from: how many lost workers make a saga a suspect.
        only: the id of the only saga to claim.
        clock: seconds, as `time.monotonic()`.

    Attributes:
        has_claimed: whether the database has answered a claim.
    """

    def __init__(
        self,
        *,
        worker: str,
        threads: Threads,
        timing: Timing,
        concurrency: int,
        suspects: Suspects,
        suspect_from: int,
        only: UUID | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker = worker
        self._threads = threads
        self._timing = timing
        self._concurrency = concurrency
        self._suspects = suspects
        self._suspect_from = suspect_from
        self._only = only
        self._clock = clock
        self._outage = Outage("the database", logger=logger, backoff=timing.outage)
        self._pause = timing.shortest_poll
        self._wanted_room = 1
        self._may_wait = False
        self._patient_until = 0.0
        self.has_claimed = False

    @property
    def waits_for_room(self) -> bool:
        """Tell whether sagas wait that the worker could claim, if it had room for them.

        A suspect waits until nothing else runs.
        """
        return self._may_wait or self._suspects.has_worker_alone

    @property
    def wants_an_end(self) -> bool:
        """Tell whether the end of a saga may let the worker claim another one."""
        # Of a name with a limit the next may begin only now.
        return self.waits_for_room or bool(max_concurrent())

    @property
    def takes_new(self) -> bool:
        """Tell whether the worker may run sagas that nobody has waited with."""
        return self.has_claimed and not self.waits_for_room

    def note_waiting(self) -> None:
        """Note that sagas wait for a claim."""
        self._may_wait = True

    async def claim(self, room: int, *, is_idle: bool) -> Round:
        """Claim as many as there is room for, where there is enough room.

        Where more sagas wait, they are claimed many at a time; but running sagas may take long, and
        the room beside them is not left empty for it.

        Args:
            room: how many sagas the worker can run more.
            is_idle: the worker runs nothing.
        """
        timing = self._timing
        is_worthwhile = room >= self._wanted_room or self._clock() >= self._patient_until
        if not room or not is_worthwhile:
            self._may_wait = True
            self._pause = timing.claim_patience if room else timing.longest_poll
            return Round([], self._pause)
        self._may_wait = False  # before the claim: what is noted during it counts
        sagas = await self._claim(room, is_idle=is_idle)
        self._may_wait |= len(sagas) == room
        # A full claim: more sagas wait, and a claim of many costs little more than a claim of one.
        self._wanted_room = max(1, self._concurrency // 4) if len(sagas) == room else 1
        self._patient_until = self._clock() + timing.claim_patience
        longer = min(self._pause * 1.5, timing.longest_poll)
        self._pause = timing.shortest_poll if sagas else longer
        return Round(sagas, self._pause)

    async def _claim(self, room: int, *, is_idle: bool) -> list[Claimed]:
        """Claim up to `room` sagas; none, after a pause, where the database is away."""
        try:
            # Suspects first: while one has the worker alone, nothing may be claimed beside it.
            suspect = [] if self._only else await self._suspects.claim(is_idle=is_idle)
            if suspect or self._suspects.has_worker_alone:
                claimed = suspect
            else:
                claimed = await self._threads.run(
                    claims.claim,
                    worker=self._worker,
                    limit=room,
                    lease=timedelta(seconds=self._timing.lease),
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
