"""Decide the fate of undelivered messages.

- Failed messages are read again.
- A message refused alone, or unsent, is parked with the rest of the key.
- Messages refused in company shall be sent again alone, and so shall the messages that failed
  beside them, which may be earlier messages of a key.
"""

from collections.abc import Collection, Iterable, Mapping

from relay.in_flight import InFlight
from relay.parking import ParkedKeys
from relay.resting_lanes import RestingLanes
from relay.store import Row
from relay.suspects import Suspects


class Failures:
    """Decide about the messages of halted lanes, and let the lanes go on."""

    def __init__(
        self,
        in_flight: InFlight,
        *,
        parked: ParkedKeys,
        suspects: Suspects,
        resting: RestingLanes,
    ) -> None:
        self._in_flight = in_flight
        self._parked = parked
        self._suspects = suspects
        self._resting = resting

    def settle(self, held: Mapping[int, int]) -> None:
        """Settle each halted lane, once every report of the lane is in; then the lane goes on.

        Args:
            held: the relay's lanes, each with the epoch of the claim.
        """
        lanes = self._in_flight.settled_lanes()
        if not lanes:
            return
        refused, failed = self._in_flight.undelivered(lanes)
        undelivered = [*refused.values(), *failed.values()]
        alone = self._suspects.alone
        certain = {*self._in_flight.unsent, alone}
        self._park([row for row in refused.values() if row.id in certain], undelivered, held)
        doubtful = [row for row in refused.values() if row.id not in certain]
        # A lane that is another relay's by now is for that relay to judge.
        doubtful_lanes = {row.lane for row in doubtful} & held.keys()
        self._suspects.add(
            row for row in [*doubtful, *failed.values()] if row.lane in doubtful_lanes
        )
        # Parking may raise, and is then repeated; so what is undelivered is forgotten last.
        self._in_flight.remove_undelivered(undelivered)
        if alone in refused or alone in failed:
            self._suspects.alone = None
        self._in_flight.resume(lanes)
        for lane in lanes & self._in_flight.lanes_to_rest.keys():
            self._resting.add(lane, self._in_flight.lanes_to_rest.pop(lane))

    def _park(
        self, judged: Collection[Row], undelivered: Iterable[Row], held: Mapping[int, int]
    ) -> None:
        """Park judged messages, unless an earlier message of the key has not arrived yet.

        Then both messages are read again.
        """
        first: dict[str, int] = {}
        for row in undelivered:
            first[row.key] = min(row.id, first.get(row.key, row.id))
        refused = [row for row in judged if first[row.key] == row.id]
        self._parked.park_refused(refused, self._in_flight.reasons, held)
        for row in refused:
            self._suspects.drop_key(row.key)
