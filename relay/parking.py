"""Keys with a parked message: what else they have in the outbox waits behind it, parked too. Left
in the outbox, it would hide every good row behind the limit of a read."""

from collections.abc import Collection, Mapping

from relay import rows
from relay.rows import Row
from saga_runtime.logs import get_logger

logger = get_logger(__name__)


class ParkedKeys:
    """The parked keys of this relay's lanes, as far as it knows.

    Only the relay that holds a lane parks there, so it learns of others' parking with the lane.
    People put messages back at any time: whether a key is still parked is asked when it matters.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._keys: set[str] = set()
        self._refused: dict[str, Row] = {}
        self._reasons: dict[int, str] = {}
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
            self._refused = {key: row for key, row in self._refused.items() if row.lane not in new}
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
        self._keys -= set(suspected) - parked - self._refused.keys()
        self._park(
            {
                key: lane
                for key, lane in suspected.items()
                if (key in parked or key in self._refused) and key not in under_way
            },
            held,
        )
        return [row for row in batch if row.key not in suspected]

    def park(
        self, refused: Collection[Row], reasons: Mapping[int, str], held: Mapping[int, int]
    ) -> None:
        """The broker refuses these messages: park each, and what follows it in its key. While
        somebody else holds a key's lock, a writer perhaps, that one waits, and no other key."""
        for row in refused:
            self._keys.add(row.key)
            self._refused[row.key] = row
            self._reasons[row.id] = reasons[row.id]
        self._park({row.key: row.lane for row in refused}, held)

    def _park(self, keys: Mapping[str, int], held: Mapping[int, int]) -> None:
        if not keys:
            return
        parked = rows.park(keys, reasons=self._reasons, epochs=held, owner=self._owner)
        for key, count in parked.items():
            refused = self._refused.pop(key, None)
            why = "an earlier message of the key is parked"
            if refused is not None:
                why = self._reasons.pop(refused.id)
            self.count += count
            logger.error(
                "parked %d message(s) of key %s: %s; see manage.py outbox parked", count, key, why
            )
