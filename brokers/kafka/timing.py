"""Hold the durations of Kafka clients, so that a test can shorten each of them."""

from dataclasses import dataclass

from saga_runtime.backoff import Backoff

_RETRY = Backoff(first=2.0, longest=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaTiming:
    """List the durations of Kafka clients, each in seconds.

    Attributes:
        connect: wait for a server's first answer to a new publisher or subscription.
        request: wait for the answer to a request; then the client reconnects and repeats it.
        answer: wait for the answer to a question about the server or a topic.
        create: wait for the creation of a topic.
        create_on_demand: wait for a server that may create a topic because a client asks for it.
        partitions: wait for the number of partitions of the subscribed topics.
        commit: wait for the end of a commit (kafka-python; librdkafka waits for `session`).
        init_transactions: wait until the server has taken a transactional id over.
        close: wait for a client to end.
        session: keep the partitions of a killed member before another member receives them.
        heartbeat: pause between two signs of life of a member.
        away_after: call a server away after so long without a connection.
        stuck_after: give a joining member up after so long without an assignment.
        stalled_after: report a connected server after so long without an acknowledgment.
        careful_for: send each message alone for so long after a batch was refused.
        absent_after: believe in an absent topic once two answers so far apart say so.
        ask_again: pause before the next question about a topic that may be absent.
        remember: keep the knowledge of an absent topic or of a size limit.
        look_every: pause between two comparisons of the topics' partitions.
        refresh: pause between two updates of a client's knowledge of its topics.
        retry: pauses between two attempts to read a broken partition.
    """

    connect: float = 2.0
    request: float = 10.0
    answer: float = 4.0
    create: float = 10.0
    create_on_demand: float = 1.0
    partitions: float = 2.0
    commit: float = 5.0
    init_transactions: float = 5.0
    close: float = 2.0
    session: float = 10.0
    heartbeat: float = 3.0
    away_after: float = 2.0
    stuck_after: float = 30.0
    stalled_after: float = 15.0
    careful_for: float = 60.0
    absent_after: float = 0.25
    ask_again: float = 0.1
    remember: float = 5.0
    look_every: float = 60.0
    refresh: float = 60.0
    retry: Backoff = _RETRY


DEFAULT_TIMING = KafkaTiming()


def milliseconds(seconds: float) -> int:
    """Convert seconds to whole milliseconds, the unit of the clients' settings."""
    return round(seconds * 1000)
