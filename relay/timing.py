"""How long a relay waits for what."""

from dataclasses import dataclass

from saga_runtime.backoff import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Hold every interval, timeout and pause of a relay, all in seconds.

    Attributes:
        lease: how long a lane stays a relay's without a sign of life; leases are renewed after a
            third of it.
        shortest_poll: pause before the outbox is read again after a cycle that moved something;
            each idle cycle makes the pause longer by half.
        longest_poll: pause between two reads of an outbox that stays empty.
        report_timeout: how long a cycle that can publish no more waits for delivery reports.
        commit_timeout: how long a cycle waits for the commits of transactional producers.
        flush_timeout: how long a relay that stops waits for the reports of what is in flight.
        wake_up_check: how often the thread that listens for wake-ups looks whether it shall end.
        suspects_round: how long refused messages are sent again alone, and the pause after that, in
            which the other lanes have their turn.
        lane_rest: how long a lane rests from which the broker took no message, though it took
            those of others.
        outage: pauses while the broker or the database does not answer.
        refusal: pauses while the database refuses what the relay needs; shorter than a lease, which
            is renewed between two of them.
        refusal_report: time between two log lines about that.
        segments: pauses between two attempts at emptying segments.
        segments_refused: the same, where the database does not let the relay's role do that.
        segments_report: time between two log lines about an outbox that grows.
    """

    lease: float = 10.0
    shortest_poll: float = 0.005
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
