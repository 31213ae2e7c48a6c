"""Compute the lane of a key: the unit that relays lease, and the first column of the indexes."""

from outbox.models import LANES
from outbox.murmur2 import murmur2


def lane_of(key: str) -> int:
    """Compute the lane of a key, 0 to LANES - 1, as the database's generated column does."""
    return murmur2(key.encode()) % LANES
