"""Keep the keys with a parked message; the rest of each key is parked too, and waits.

Left in the outbox, the waiting rows would hide every good row behind the limit of a read.
"""

from collections.abc import Collection, Mapping

from relay.store import Row, Store
from saga_runtime.logs import get_logger

logger = get_logger(__name__)


class ParkedKeys:
    """Keep the parked keys of the relay's lanes, as far as known, and park more.

    Only the holder of a lane parks there, so a relay learns of parked keys with the lane.
    People put messages back at any time: whether a key is still parked is asked when it matters.

    Attributes:
        count: how many messages the relay has parked.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: set[str] = set()
        self._refused: dict[str, Row] = {}
        self._reasons: dict[int, str] = {}
        self._learned: dict[int, int] = {}
        self.count = 0

    def learn(self, held: Mapping[int, int]) -> None:
        """Read the parked keys of newly claimed lanes.

        Args:
            held: the relay's lanes, each with the epoch of the claim.
        """
        # A new epoch: another relay may have parked there meanwhile.
        new = [lane for lane, epoch in held.items() if self._learned.get(lane) != epoch]
        if new:
            self._keys |= self._store.parked_keys(new)
            self._refused = {key: row for key, row in self._refused.items() if row.lane not in new}
        if new or len(held) != len(self._learned):
            self._learned = dict(held)

    def among(self, batch: Collection[Row]) -> dict[str, int]:
        """Return the parked keys in a batch, as far as known, each with the key's lane."""
        if not self._keys:
            return {}
        return {row.key: row.lane for row in batch if row.key in self._keys}

    def park_waiting(
        self, keys: Mapping[str, int], *, held: Mapping[int, int], in_flight: Collection[str]
    ) -> None:
        """Park the rows of keys, as far as the keys are still parked.

        A key that a person has put back is forgotten. Its rows go out with the next read, and no
        earlier: rows read before are newer than the rows put back.

        Args:
            keys: as returned by `among()`.
            held: the relay's lanes, each with the epoch of the claim.
            in_flight: keys with a row in flight; their turn comes later.
        """
        # Asked now: people put messages back beside us.
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
        """Park refused messages, and the messages that follow in their keys.

        While a writer, or a person, holds a key's lock, only that key waits.

        Args:
            refused: the messages' rows.
            reasons: the broker's, by the row's id.
            held: the relay's lanes, each with the epoch of the claim.
        """
        # Noted before they are parked: a key whose lock somebody holds is not parked now, and its
        # later messages must not go out meanwhile.
        for row in refused:
            self._keys.add(row.key)
            self._refused[row.key] = row
            self._reasons[row.id] = reasons[row.id]
        self._park({row.key: row.lane for row in refused}, held)

    def _park(self, keys: Mapping[str, int], held: Mapping[int, int]) -> None:
        if not keys:
            return
        for key, count in self._store.park(keys, reasons=self._reasons, epochs=held).items():
            # None: a person or another relay has parked the key before.
            refused = self._refused.pop(key, None)
            why = "an earlier message of the key is parked"
            if refused is not None:
                why = self._reasons.pop(refused.id)
            self.count += count
            logger.error(
                "parked %d message(s) of key %s: %s; see manage.py outbox parked", count, key, why
            )
