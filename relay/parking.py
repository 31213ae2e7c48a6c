"""Keys with a parked message: their messages in the outbox wait behind it, and are parked too.

Left in the outbox, they would hide every good row behind the limit of a read.
"""

from collections.abc import Collection, Mapping

from relay.store import Row, Store
from saga_runtime.logs import get_logger

logger = get_logger(__name__)


class ParkedKeys:
    """Keep the parked keys of this relay's lanes, as far as the relay knows, and park more.

    Only the relay that holds a lane parks there, so a relay learns of parked keys with the lane.
    People put messages back at any time: whether a key is still parked is asked when it matters.

    Attributes:
        count: how many messages this relay has parked.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: set[str] = set()
        self._refused: dict[str, Row] = {}
        self._reasons: dict[int, str] = {}
        self._learned: dict[int, int] = {}
        self.count = 0

    def learn(self, held: Mapping[int, int]) -> None:
        """Read the parked keys of the lanes that are new to this relay.

        Args:
            held: the relay's lanes, each with its epoch.
        """
        new = [lane for lane, epoch in held.items() if self._learned.get(lane) != epoch]
        if new:
            self._keys |= self._store.parked_keys(new)
            self._refused = {key: row for key, row in self._refused.items() if row.lane not in new}
        if new or len(held) != len(self._learned):
            self._learned = dict(held)

    def among(self, batch: Collection[Row]) -> dict[str, int]:
        """Return the keys of this batch that are parked, as far as known, each with its lane."""
        if not self._keys:
            return {}
        return {row.key: row.lane for row in batch if row.key in self._keys}

    def park_waiting(
        self, keys: Mapping[str, int], *, held: Mapping[int, int], in_flight: Collection[str]
    ) -> None:
        """Park what these keys have in the outbox, as far as they are still parked.

        A key that a person has put back is forgotten; so its rows go out with the next read, and no
        earlier: rows that were read before are newer than the rows that were put back.

        Args:
            keys: what `among()` has returned.
            held: the relay's lanes, each with its epoch.
            in_flight: keys with a row in flight; their turn comes later.
        """
        parked = self._store.still_parked(keys)
        self._keys -= set(keys) - parked - self._refused.keys()
        waiting = {
            key: lane
            for key, lane in keys.items()
            if (key in parked or key in self._refused) and key not in in_flight
        }
        self._park(waiting, held)

    def park_refused(
        self, refused: Collection[Row], reasons: Mapping[int, str], held: Mapping[int, int]
    ) -> None:
        """Park messages that the broker refuses, and what follows each in its key.

        While somebody else holds a key's lock, a writer perhaps, that key waits, and no other.

        Args:
            refused: the messages' rows.
            reasons: the broker's, by the row's id.
            held: the relay's lanes, each with its epoch.
        """
        for row in refused:
            self._keys.add(row.key)
            self._refused[row.key] = row
            self._reasons[row.id] = reasons[row.id]
        self._park({row.key: row.lane for row in refused}, held)

    def _park(self, keys: Mapping[str, int], held: Mapping[int, int]) -> None:
        if not keys:
            return
        for key, count in self._store.park(keys, reasons=self._reasons, epochs=held).items():
            refused = self._refused.pop(key, None)
            why = "an earlier message of the key is parked"
            if refused is not None:
                why = self._reasons.pop(refused.id)
            self.count += count
            logger.error(
                "parked %d message(s) of key %s: %s; see manage.py outbox parked", count, key, why
            )
