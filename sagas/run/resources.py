"""What the runs of one worker share."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from saga_runtime.abandoned_calls import AbandonedCalls
from saga_runtime.database_threads import Threads
from sagas.journal.group_commit import GroupCommit
from sagas.run.timing import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResources:
    """Lend a run what it needs of its worker.

    Attributes:
        journal: threads for local steps, and for statements that are written for one saga alone.
        calls: threads for `call_in_thread`.
        group: what sagas write side by side shares its transactions.
        abandoned_calls: keeps the calls that did not heed their cancel.
        timing: how long to wait for what.
        jitter: 0 to 1, as `random.random()`: which part of a pause is left to chance.
    """

    journal: Threads
    calls: Threads
    group: GroupCommit
    abandoned_calls: AbandonedCalls = field(default_factory=AbandonedCalls)
    timing: Timing = field(default_factory=Timing)
    jitter: Callable[[], float] = random.random

    def retry_pause(self, failures: int) -> float:
        """Return the seconds to rest after so many failures, counted from 1 on."""
        return self.timing.retry.pause(failures) * (0.5 + self.jitter())
