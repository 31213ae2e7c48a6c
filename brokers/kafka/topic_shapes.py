"""Notice that a topic loses or gains partitions, or disappears, while processes run.

Kafka creates an absent topic on demand where a client asks for it, and gives it as many partitions
as the server is set to, often one: so a deleted topic comes back smaller.
"""

import threading
import time
from collections.abc import Callable, Mapping

from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming
from saga_runtime.logs import get_logger

logger = get_logger(__name__)

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
    """Log how many partitions topics have, once for each change.

    Args:
        partitions: how many partitions each topic should have.
    """

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._known: dict[str, int] = {}
        self._lock = threading.Lock()  # relay and consumer may be in one process

    def note(self, counts: Mapping[str, int]) -> None:
        """Log each count that has changed.

        Args:
            counts: partitions by the topic's name on the servers; 0 for a topic that is gone.
        """
        for topic, count in counts.items():
            with self._lock:
                before, self._known[topic] = self._known.get(topic), count
            if count != before:
                self._log_change(topic, count, before)

    def meet(self, topic: str, count: int) -> None:
        """Note the count that a publisher hears; a topic's first count is not logged.

        The first count is no news: somebody may have created the topic with so many partitions on
        purpose, or the topic may never have existed.

        Args:
            topic: its name on the servers.
            count: its partitions; 0 for a topic that is gone.
        """
        with self._lock:
            is_new = topic not in self._known
            if is_new and count:
                self._known[topic] = count
        if not is_new:
            self.note({topic: count})

    def _log_change(self, topic: str, count: int, before: int | None) -> None:
        if count == 0:
            logger.warning(_GONE, topic, self._partitions)
        elif count < self._partitions:
            logger.warning(_FEWER, topic, count, self._partitions)
        elif before is not None and before < self._partitions:
            logger.warning("the topic %s has %d partitions again", topic, count)
        elif before is not None and count > before:
            logger.warning(_MORE, topic, count, before)


class TopicWatch:
    """Look at the topics of one client now and then, every `look_every` seconds.

    Args:
        shapes: is told the counts.
        timing: how often to look.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        shapes: TopicShapes,
        timing: KafkaTiming = DEFAULT_TIMING,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shapes = shapes
        self._timing = timing
        self._clock = clock
        self._due = clock() + timing.look_every  # `ensure_topics()` has looked at the start
        self._last: Mapping[str, int] = {}

    def look(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Compare the counts with those before, where a look is due. Never raises.

        Only a count that two looks in a row have found is passed on: a server that has just
        started, or lags behind the others, still shows an earlier state.

        Args:
            counts: partitions by topic, as the client heard last, at best without asking a server;
                0 for a topic that does not exist.
        """
        if self._clock() < self._due:
            return
        self._due = self._clock() + self._timing.look_every
        try:
            found = counts()
        except Exception:
            logger.debug("the topics' partitions are not known", exc_info=True)
            return
        sure = {topic: n for topic, n in found.items() if n == self._last.get(topic)}
        self._last = found
        self._shapes.note(sure)
