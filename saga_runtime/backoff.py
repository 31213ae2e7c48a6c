"""Compute pauses that grow with each failure in a row."""

from dataclasses import dataclass

_MOST_DOUBLINGS = 100  # far past any limit in use, and far from a float's


@dataclass(frozen=True, slots=True)
class Backoff:
    """Double a pause with each failure, up to a limit.

    Attributes:
        first: seconds to pause after the first failure.
        longest: seconds to pause at most.
    """

    first: float
    longest: float

    def pause(self, failures: int) -> float:
        """Return the seconds to pause after so many failures in a row, counted from 1 on."""
        return min(self.first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), self.longest)
