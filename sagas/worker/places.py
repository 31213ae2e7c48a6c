"""Count the places of a worker: each saga takes one from before its claim to its end."""

import threading


class Places:
    """Count the free places of a worker; any thread may take and free places.

    Args:
        count: how many sagas the worker runs at a time.

    Attributes:
        count: the same.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._taken = 0
        self._is_open = False
        self._lock = threading.Lock()

    def open(self, *, is_open: bool) -> None:
        """Let `reserve()` take places, or no more."""
        with self._lock:
            self._is_open = is_open

    def reserve(self, most: int) -> int:
        """Take up to so many places, and return how many; none while the places are not open."""
        with self._lock:
            return self._take(most) if self._is_open else 0

    def take_all(self) -> int:
        """Take every free place, and return how many there were."""
        with self._lock:
            return self._take(self.count)

    def free(self, count: int = 1) -> None:
        """Free places that were taken."""
        with self._lock:
            self._taken -= count

    @property
    def is_open(self) -> bool:
        """Tell whether places may be reserved."""
        return self._is_open

    @property
    def taken(self) -> int:
        """Return how many places are taken."""
        return self._taken

    def _take(self, most: int) -> int:
        taken = max(0, min(most, self.count - self._taken))
        self._taken += taken
        return taken
