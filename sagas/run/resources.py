"""Lend the runs of a worker their shared threads and timing."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from saga_runtime.abandoned_calls import AbandonedCalls
from saga_runtime.database_threads import Threads
from sagas.journal.group_commit import GroupCommit
from sagas.run.timing import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResources:
    """Hold the shared parts of a worker, for the runs.

    Attributes:
        journal: threads for local steps, and for statements outside group commit.
        calls: threads for `call_in_thread`.
        group: group commit: parallel entries of several sagas share transactions.
        abandoned_calls: calls that have ignored their cancels.
        timing: of the worker.
        jitter: 0 to 1, as `random.random()`: the random part of a pause.
        commits_together: let local steps that follow each other share a transaction, and the end of
            the saga too.
    """

    journal: Threads
    calls: Threads
    group: GroupCommit
    abandoned_calls: AbandonedCalls = field(default_factory=AbandonedCalls)
    timing: Timing = field(default_factory=Timing)
    jitter: Callable[[], float] = random.random
    commits_together: bool = True

    def retry_pause(self, failures: int) -> float:
        """Return the seconds to rest after so many failures, counted from 1 on."""
        return self.timing.retry.pause(failures) * (0.5 + self.jitter())
