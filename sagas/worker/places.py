"""Count the places of a worker: each saga takes one from before its claim to its end."""

import threading


class Places:
    """Count the free places of a worker; any thread may take and free places.

    Args:
        count: how many sagas the worker runs at a time.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, most: int) -> int:
        """Take up to so many places, and return how many were free."""
        with self._lock:
            taken = max(0, min(most, self._count - self._taken))
            self._taken += taken
            return taken

    def free(self, count: int = 1) -> None:
        """Free places that were taken."""
        with self._lock:
            self._taken -= count

    @property
    def taken(self) -> int:
        """Return how many places are taken."""
        return self._taken
