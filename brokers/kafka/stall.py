"""Report a server that is connected and acknowledges nothing; neither client says so."""

import time
from collections.abc import Callable

from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming
from saga_runtime.outage import Outage

REASON = (
    "it is connected, but acknowledges nothing: perhaps too few replicas are in sync "
    "(min.insync.replicas), or a partition has no leader; what is queued waits"
)


class Stall:
    """Tell an `Outage` about a stall for as long as the stall lasts."""

    def __init__(
        self,
        outage: Outage,
        timing: KafkaTiming = DEFAULT_TIMING,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outage = outage
        self._timing = timing
        self._clock = clock
        self._since: float | None = None

    def note(self, *, is_waiting: bool) -> None:
        """Note the result of a look for reports; call this after each look.

        Args:
            is_waiting: there was no report, though a message waits for its acknowledgment.
        """
        if not is_waiting:
            self._since = None
        elif self._since is None:
            self._since = self._clock()
        elif self._clock() - self._since >= self._timing.stalled_after:
            self._outage.failed(REASON)
