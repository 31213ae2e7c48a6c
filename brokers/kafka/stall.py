"""A broker that is connected, and acknowledges nothing: neither client says a word of that."""

import time
from collections.abc import Callable

from saga_runtime.outage import Outage

STALLED_AFTER = 15.0
REASON = (
    "it is connected, but acknowledges nothing: perhaps too few replicas are in sync "
    "(min.insync.replicas), or a partition has no leader; what is queued waits"
)


class Stall:
    """Tells `outage` of it, as long as it lasts."""

    def __init__(self, outage: Outage, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._outage = outage
        self._clock = clock
        self._since: float | None = None

    def note(self, *, is_waiting: bool) -> None:
        """Call it after each look for reports.

        Args:
            is_waiting: there was no report, and there is something to be acknowledged.
        """
        if not is_waiting:
            self._since = None
        elif self._since is None:
            self._since = self._clock()
        elif self._clock() - self._since >= STALLED_AFTER:
            self._outage.failed(REASON)
