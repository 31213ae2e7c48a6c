"""Hold all waiting of a relay: intervals, timeouts and pauses."""

from dataclasses import dataclass

from saga_runtime.backoff import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Hold every interval, timeout and pause of a relay, all in seconds.

    Attributes:
        lease: how long a lane stays with a relay without a sign of life; leases are renewed after a
            third of the time.
        shortest_poll: pause before the outbox is read again after a cycle with work;
            each idle cycle makes the pause longer by half.
        breather: pause between two reads of a relay that is woken by commits and has read all there
            was: what is committed meanwhile is one batch.
        longest_poll: pause between two reads of an empty outbox.
        report_timeout: how long a cycle without more to publish waits for delivery reports.
        commit_timeout: how long a cycle waits for the commits of transactional producers.
        flush_timeout: how long a stopping relay waits for the reports of messages in flight.
        wake_up_check: how often the thread for wake-ups looks whether to end.
        suspects_round: how long refused messages are sent again alone, and the pause afterwards,
            for the rest of the lanes.
        lane_rest: how long a lane rests when the broker took none of the lane's messages, but took
            messages of further lanes.
        outage: pauses while the broker or the database does not answer.
        refusal: pauses while the database refuses a statement; shorter than a lease, because leases
            are renewed in between.
        refusal_report: time between two log lines about a refusal.
        segments: pauses between two attempts at emptying segments.
        segments_refused: the same, where the relay's role lacks the right.
        segments_report: time between two log lines about a growing outbox.
    """

    lease: float = 10.0
    shortest_poll: float = 0.005
    breather: float = 0.02
    longest_poll: float = 0.7
    report_timeout: float = 0.05
    commit_timeout: float = 2.0
    flush_timeout: float = 4.0
    wake_up_check: float = 0.25
    suspects_round: float = 0.25
    lane_rest: Backoff = Backoff(first=0.3, longest=30.0)
    outage: Backoff = Backoff(first=0.2, longest=5.0)
    refusal: Backoff = Backoff(first=0.5, longest=5.0)
    refusal_report: float = 60.0
    segments: Backoff = Backoff(first=2.0, longest=60.0)
    segments_refused: float = 600.0
    segments_report: float = 60.0


POSTGRESQL_TIMING = Timing()
SQLITE_TIMING = Timing(longest_poll=0.25)  # nobody wakes a relay there
