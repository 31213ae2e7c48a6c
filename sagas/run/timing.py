"""Hold the intervals, timeouts and pauses of a worker, and of each run in the worker."""

from dataclasses import dataclass
from typing import Self

from saga_runtime import project_settings
from saga_runtime.backoff import Backoff

CANCEL_GRACE = 5.0
"""Seconds for a call to end after each of two cancels, unless a worker's timing says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Hold every interval, timeout and pause of a worker and of runs, all in seconds.

    Attributes:
        lease: how long a saga stays a worker's without a sign of life; leases are renewed after a
            third of the time.
        grace: how long running sagas may take to finish once the worker is to stop. Afterwards
            sagas are handed over behind the running step, which may take as long again.
        shortest_poll: pause before the next claim after a successful claim; each claim that
            finds nothing makes the pause longer by half.
        longest_poll: pause between two claims while nothing waits for a worker.
        claim_patience: how long a claim waits for room for many sagas at a time.
        suspects_interval: pause between two looks for sagas that may have killed workers.
        unwell_patience: how long a worker without threads waits for a call to return before the
            worker hands all sagas over and ends.
        close_timeout: how long an ending worker waits for threads.
        loop_end: how long tasks, asynchronous generators and threads of `asyncio.to_thread` may
            each take when the event loop ends.
        retry: rests between two attempts at a step, before jitter.
        longest_rest: a saga of which every step rests longer is given up meanwhile, holds no
            worker, and is claimed again when due.
        cancel_grace: how long a call may take to end after each of two cancels.
        conflict_pause: longest pause after the database has ended a local step's transaction in
            favour of another transaction.
        busy: pauses while the saga's row is held elsewhere.
        outage: pauses while the database does not answer.
        hang_margin: how long, on top of a limit, an app's code may go on in a thread without a
            statement, before the code counts as hanging. Longer than SQLite's writers wait for
            their turn, which is no statement.
        hook_limit: the limit for an app's hooks at a saga's end; a local step's limit is the
            step's timeout.
        hook_excuse: how long, from the first excused try of such a function on, more are excused,
            however many there were.
    """

    lease: float = 10.0
    grace: float = 20.0
    shortest_poll: float = 0.02
    longest_poll: float = 0.5
    claim_patience: float = 0.1
    suspects_interval: float = 1.0
    unwell_patience: float = 30.0
    close_timeout: float = 2.0
    loop_end: float = 5.0
    retry: Backoff = Backoff(first=0.2, longest=30.0)
    longest_rest: float = 1.0
    cancel_grace: float = CANCEL_GRACE
    conflict_pause: float = 0.02
    busy: Backoff = Backoff(first=0.02, longest=1.0)
    outage: Backoff = Backoff(first=0.2, longest=5.0)
    hang_margin: float = 30.0
    hook_limit: float = 60.0
    hook_excuse: float = 30.0

    @classmethod
    def from_settings(cls) -> Self:
        """Return the timing in the project's settings."""
        retry = Backoff(
            first=project_settings.first_backoff(), longest=project_settings.longest_backoff()
        )
        return cls(lease=project_settings.lease(), retry=retry)
