"""Count messages that come out of order, by their `ce_sequence`.

The sequence only rises within a key (a subject of a source), so each consumer can see for itself
whether the order holds. Only messages that are new to the inbox are looked at: one that comes
again, after a crash or to another consumer, is not out of order.
"""

from collections import OrderedDict
from collections.abc import Iterable

from brokers.cloudevents import CloudEvent
from saga_runtime.logs import get_logger
from sagas.inbox import counters

logger = get_logger(__name__)

MOST_KEYS = 50_000
"""Keys that a consumer remembers; the one that was seen longest ago is forgotten first."""


class Sequences:
    """Remember the highest sequence accepted of each key that was seen lately.

    Args:
        most: how many keys to remember.
    """

    def __init__(self, *, most: int = MOST_KEYS) -> None:
        self._most = most
        self._highest: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._highest)

    def note(self, accepted: Iterable[CloudEvent]) -> int:
        """Note messages that the inbox has accepted for the first time, in the order of arrival.

        Returns:
            How many of the messages were out of order.
        """
        return sum(map(self._is_out_of_order, accepted))

    def _is_out_of_order(self, event: CloudEvent) -> bool:
        if event.sequence is None:
            return False
        key = (event.source, event.subject)
        highest = self._highest.get(key, event.sequence)
        self._highest[key] = max(highest, event.sequence)
        self._highest.move_to_end(key)
        if len(self._highest) > self._most:
            self._highest.popitem(last=False)
        if event.sequence >= highest:
            return False
        counters.OUT_OF_ORDER.inc()
        logger.warning(
            "out of order: %s %s of key %s has sequence %d, after %d",
            event.type,
            event.id,
            event.subject,
            event.sequence,
            highest,
        )
        return True
