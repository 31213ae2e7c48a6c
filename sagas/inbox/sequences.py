"""Count messages out of order, by `ce_sequence`.

The sequence only rises within a key (a subject of a source), so each consumer can check the order
alone. Only new messages are checked: a redelivered message is not out of order.
"""

from collections import OrderedDict
from collections.abc import Iterable

from brokers.cloudevents import CloudEvent
from saga_runtime.logs import get_logger
from sagas.inbox import counters

logger = get_logger(__name__)

MOST_KEYS = 50_000
"""Keys to remember; the least recently seen key is forgotten first."""


class Sequences:
    """Remember the highest accepted sequence of each recently seen key.

    Args:
        most: how many keys to remember.
    """

    def __init__(self, *, most: int = MOST_KEYS) -> None:
        self._most = most
        self._highest: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._highest)

    def note(self, accepted: Iterable[CloudEvent]) -> int:
        """Note newly accepted messages, in the order of arrival.

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
