"""What becomes of messages that did not arrive.

- What failed is read again.
- What was refused alone, or unsent, is parked with its key.
- What was refused in company shall be sent again alone, and so shall what failed beside it, which
  may be earlier ones of a key.
"""

from collections.abc import Collection, Iterable, Mapping

from relay.flight import Flight
from relay.parking import ParkedKeys
from relay.resting_lanes import Rests
from relay.rows import Row
from relay.suspects import Suspects


class Settling:
    def __init__(
        self, flight: Flight, *, parked: ParkedKeys, suspects: Suspects, rests: Rests
    ) -> None:
        self._flight = flight
        self._parked = parked
        self._suspects = suspects
        self._rests = rests

    def settle(self, held: Mapping[int, int]) -> None:
        """In each lane that has stopped, once every report of it is in; then it goes on.

        Args:
            held: the lanes that are the relay's, each with its epoch.
        """
        quiet = self._flight.quiet_lanes()
        if not quiet:
            return
        refused, failed = self._flight.settled(quiet)
        unsettled = [*refused.values(), *failed.values()]
        certain = {*self._flight.unsent, self._suspects.alone}
        judged = [row for row in refused.values() if row.id in certain]
        self._park_first(judged, unsettled, held)
        doubtful = [row for row in refused.values() if row.id not in certain]
        lanes = {row.lane for row in doubtful} & held.keys()
        self._suspects.add(row for row in [*doubtful, *failed.values()] if row.lane in lanes)
        self._flight.forget(unsettled)
        if self._suspects.alone in refused or self._suspects.alone in failed:
            self._suspects.alone = None
        self._flight.resume(quiet)
        for lane in quiet & self._flight.to_rest.keys():
            self._rests.add(lane, self._flight.to_rest.pop(lane))

    def _park_first(
        self, judged: Collection[Row], unsettled: Iterable[Row], held: Mapping[int, int]
    ) -> None:
        """With what follows in their keys. Where an earlier one of the key has not arrived yet,
        both are read again."""
        first: dict[str, int] = {}
        for row in unsettled:
            first[row.key] = min(row.id, first.get(row.key, row.id))
        refused = [row for row in judged if first[row.key] == row.id]
        self._parked.park(refused, self._flight.refused, held)
        for row in refused:
            self._suspects.drop_key(row.key)
