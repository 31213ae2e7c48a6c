"""Keys with a parked message: what else they have in the outbox waits behind it, parked too. Left
in the outbox, it would hide every good row behind the limit of a read."""

import logging
from collections.abc import Collection, Mapping

from relay import rows
from relay.rows import Row

logger = logging.getLogger(__name__)


class ParkedKeys:
    """The parked keys of this relay's lanes, as far as it knows.

    Only the relay that holds a lane parks there, so it learns of others' parking with the lane.
    People put messages back at any time: whether a key is still parked is asked when it matters.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._keys: set[str] = set()
        self._learned: dict[int, int] = {}
        self.count = 0
        """How many messages it has parked."""

    def __bool__(self) -> bool:
        return bool(self._keys)

    def learn(self, held: Mapping[int, int]) -> None:
        """Look at the lanes that are new to this relay."""
        new = [lane for lane, epoch in held.items() if self._learned.get(lane) != epoch]
        if new:
            self._keys |= rows.parked_keys(new)
        if new or len(held) != len(self._learned):
            self._learned = dict(held)

    def without_waiting(
        self, batch: Collection[Row], held: Mapping[int, int], under_way: Collection[str]
    ) -> list[Row]:
        """The rows that may be sent. Those that must wait behind a parked one are parked, once
        nothing of their key is under way. Where a person has put the key back meanwhile, what was
        read before is older than that, and left for the next read."""
        suspected = {row.key: row.lane for row in batch if row.key in self._keys}
        if not suspected:
            return [*batch]
        parked = rows.still_parked(suspected)
        self._keys -= set(suspected) - parked
        now = {key: suspected[key] for key in parked if key not in under_way}
        if now:
            count = rows.park(now, reasons={}, epochs=held, owner=self._owner)
            self._log(count, now, "an earlier message of the key is parked")
        return [row for row in batch if row.key not in suspected]

    def park(self, row: Row, reasons: Mapping[int, str], held: Mapping[int, int]) -> None:
        """The broker refuses this message: park it, and what follows it in its key."""
        count = rows.park({row.key: row.lane}, reasons=reasons, epochs=held, owner=self._owner)
        self._keys.add(row.key)
        self._log(count, [row.key], reasons.get(row.id, ""))

    def _log(self, count: int, keys: Collection[str], why: str) -> None:
        self.count += count
        if count:
            names = ", ".join(sorted(keys))
            logger.error("parked %d message(s) of key %s: %s", count, names, why)
