"""Noticing that a topic has lost or gained partitions, or is gone, while processes run.

Kafka makes a topic on demand where a client asks for one that is not there, and gives it as many
partitions as the server is set to, often one: so comes back what was deleted.
"""

import threading
import time
from collections.abc import Callable, Mapping

from saga_runtime.logs import get_logger

logger = get_logger(__name__)

LOOK_EVERY = 60.0  # seconds
HEARD_EVERY_MS = 60_000  # so often each client asks for its topics

_FEWER = (
    "the topic %s has %d partition(s), and KAFKA_PARTITIONS is %d: was it made again by somebody "
    "else? What an earlier one held is gone with it, and no more consumers than partitions share "
    "its work. Set KAFKA_PARTITIONS to what is right; more partitions move keys, so let the outbox "
    "and the consumers come to rest before"
)
_GONE = (
    "Kafka no longer shows the topic %s, which should have %d partition(s): was it deleted, or our "
    "right to see it taken? A relay or consumer that starts makes it again"
)
_MORE = (
    "the topic %s has %d partitions, and had %d: keys move, and a message may be received before "
    "an earlier one of its key that still waits in its former partition. Another time let the "
    "outbox and the consumers come to rest before"
)


class TopicShapes:
    """How many partitions topics have, as the log has heard of it: once for each change.

    Args:
        partitions: how many each of them should have.
    """

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._known: dict[str, int] = {}
        self._lock = threading.Lock()  # relay and consumer may be in one process

    def note(self, counts: Mapping[str, int]) -> None:
        """Say what has changed.

        Args:
            counts: partitions by topic, by its name on the servers; 0 is a topic that is gone.
        """
        for topic, count in counts.items():
            with self._lock:
                before, self._known[topic] = self._known.get(topic), count
            if count != before:
                self._tell(topic, count, before)

    def meet(self, topic: str, count: int) -> None:
        """Note what a publisher hears of a topic. Its first word is no news: somebody may have
        meant it so, or it may have never been there.

        Args:
            count: as for `note()`.
        """
        with self._lock:
            is_new = topic not in self._known
            if is_new and count:
                self._known[topic] = count
        if not is_new:
            self.note({topic: count})

    def _tell(self, topic: str, count: int, before: int | None) -> None:
        if count == 0:
            logger.warning(_GONE, topic, self._partitions)
        elif count < self._partitions:
            logger.warning(_FEWER, topic, count, self._partitions)
        elif before is not None and before < self._partitions:
            logger.warning("the topic %s has %d partitions again", topic, count)
        elif before is not None and count > before:
            logger.warning(_MORE, topic, count, before)


class TopicWatch:
    """One client's look at the topics, now and then.

    Args:
        shapes: hears of them.
        clock: seconds that only rise.
    """

    def __init__(self, shapes: TopicShapes, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._shapes = shapes
        self._clock = clock
        self._due = clock() + LOOK_EVERY  # whoever starts has just looked
        self._last: Mapping[str, int] = {}

    def look(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Look where it is time to. Never raises: nothing that works depends on it.

        Args:
            counts: what the client has heard of last, at best without asking: partitions by topic,
                0 for one that is not there. Only what two looks in a row have found counts: a
                server that has just started, or lags behind the others, tells of what was.
        """
        if self._clock() < self._due:
            return
        self._due = self._clock() + LOOK_EVERY
        try:
            found = counts()
        except Exception:
            logger.debug("the topics' partitions are not known", exc_info=True)
            return
        sure = {topic: n for topic, n in found.items() if n == self._last.get(topic)}
        self._last = found
        self._shapes.note(sure)
