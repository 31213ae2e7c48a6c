"""Run a saga that may kill the worker alone in a worker, without long delays for other sagas.

Sagas that were claimed together with a suspect lose workers too, and must not be parked for that.
So nothing is claimed beside a suspect, and a suspect is claimed when nothing runs any more. In
between the other sagas have their turn.
"""

import random
import time
from collections.abc import Callable
from datetime import timedelta

from saga_runtime.database_threads import Threads
from sagas.definition.registry import max_concurrent
from sagas.journal import claims
from sagas.journal.records import Claimed
from sagas.run.timing import Timing


class Suspects:
    """Claim suspects for a worker.

    Args:
        worker: the worker's name.
        threads: to ask the database in.
        timing: of the worker.
        suspect_from: how many lost workers make a saga a suspect.
        clock: seconds, as `time.monotonic()`.
        chance: 0 to 1, as `random.random()`.

    Attributes:
        has_worker_alone: nothing else is to be claimed: a suspect runs, or waits until
            nothing runs any more.
    """

    def __init__(
        self,
        *,
        worker: str,
        threads: Threads,
        timing: Timing,
        suspect_from: int,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._worker = worker
        self._threads = threads
        self._lease = timing.lease
        self._interval = timing.suspects_interval
        self._suspect_from = suspect_from
        self._clock = clock
        self._chance = chance
        self._runs_one = False
        self._runs_since = 0.0
        self._waits_since = 0.0
        self._next_look = 0.0
        self.has_worker_alone = False

    async def claim(self, *, is_idle: bool) -> list[Claimed]:
        """Claim a suspect where suspects have their turn.

        Args:
            is_idle: the worker runs nothing.

        Returns:
            A single saga or none.

        Raises:
            django.db.Error: the database is away.
        """
        now = self._clock()
        if self._runs_one and is_idle:
            self._runs_one = self.has_worker_alone = False
            self._next_look = now + self._interval
        elif self._runs_one and now - self._runs_since > self._lease:
            # It may hang: the others do not wait for that.
            self._runs_one = self.has_worker_alone = False
            self._next_look = self._after_the_others(now)
        is_early = now < self._next_look and not (is_idle and self.has_worker_alone)
        if self._runs_one or is_early:
            return []
        self._next_look = now + self._interval
        if not is_idle:
            await self._look(now)
            return []
        claimed = await self._threads.run(
            claims.claim_suspect,
            worker=self._worker,
            lease=timedelta(seconds=self._lease),
            at_most=max_concurrent(),
            suspect_from=self._suspect_from,
        )
        self.has_worker_alone = self._runs_one = bool(claimed)
        self._runs_since = self._clock()
        return claimed

    async def _look(self, now: float) -> None:
        """Keep the worker from claiming while a suspect waits for the end of all running sagas.

        But not for longer than a lease, and then not again for two.
        """
        found = await self._threads.run(
            claims.is_there_a_suspect, at_most=max_concurrent(), suspect_from=self._suspect_from
        )
        if not self.has_worker_alone:
            self._waits_since = now
        if found and now - self._waits_since > self._lease:
            found = False
            self._next_look = self._after_the_others(now)
        self.has_worker_alone = found

    def _after_the_others(self, now: float) -> float:
        """Return when the next suspect has a turn; not at the same moment in each worker."""
        return now + self._lease * (1 + 2 * self._chance())
