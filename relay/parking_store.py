"""Read and park messages in the same way on both databases."""

from collections import Counter
from collections.abc import Collection, Mapping

from django.db import transaction

from outbox import moving
from outbox.keys import MOST_KEYS, try_lock_keys
from outbox.models import LANES, OutboxMessage, ParkedMessage
from outbox.murmur2 import murmur2


class ParkingStore:
    """Read and write parked messages by way of the ORM; each database's store adds the rest.

    Args:
        owner: the relay's name, different for each relay.
        keys_at_a_time: how many keys a transaction parks; the transaction locks each.
    """

    def __init__(self, owner: str, *, keys_at_a_time: int = MOST_KEYS) -> None:
        self.owner = owner
        self._keys_at_a_time = keys_at_a_time

    def any_left(self) -> bool:
        """Tell whether the outbox has any row."""
        return OutboxMessage.objects.exists()

    def parked_keys(self, lanes: Collection[int]) -> set[str]:
        """Return the keys with a parked message in the lanes."""
        keys = ParkedMessage.objects.order_by().filter(lane__in=lanes).values_list("key", flat=True)
        return set(keys.distinct())

    def still_parked(self, keys: Collection[str]) -> set[str]:
        """Return the given keys that have a parked message now."""
        # The lane is in the filter because the index begins with it.
        parked = ParkedMessage.objects.order_by().filter(key__in=keys, lane__in=range(LANES))
        return set(parked.values_list("key", flat=True).distinct())

    def park(
        self, keys: Mapping[str, int], *, reasons: Mapping[int, str], epochs: Mapping[int, int]
    ) -> Counter[str]:
        """Move every row of the keys to the parked messages; see `Store.park()`."""
        parked: Counter[str] = Counter()
        named = [*keys.items()]
        for start in range(0, len(named), self._keys_at_a_time):
            some = dict(named[start : start + self._keys_at_a_time])
            parked += self._park(some, reasons, epochs)
        return parked

    @transaction.atomic
    def _park(
        self, keys: Mapping[str, int], reasons: Mapping[int, str], epochs: Mapping[int, int]
    ) -> Counter[str]:
        # First the lanes: from here to the commit no other relay can take them over.
        lanes = self._lock_lanes(set(keys.values()), epochs)
        # Then the keys. Whoever puts one back, or writes it, holds its lock: it is left for the
        # next time, because waiting would hold up the lanes.
        hashes = {key: murmur2(key.encode()) for key, lane in keys.items() if lane in lanes}
        locked = try_lock_keys(hashes.values())
        held = [key for key, key_hash in hashes.items() if key_hash in locked]
        # Only under the locks is it known whether a person has put the key back meanwhile.
        found = OutboxMessage.objects.filter(id__in=[*reasons], key__in=held, lane__in=lanes)
        refused = set(found.values_list("key", flat=True))
        behind = refused | self.still_parked(set(held) - refused)
        return moving.park(behind, lanes=lanes, reasons=reasons)

    def _lock_lanes(self, lanes: Collection[int], epochs: Mapping[int, int]) -> set[int]:
        """Return the lanes still held by the relay, and hold them until the commit."""
        raise NotImplementedError
