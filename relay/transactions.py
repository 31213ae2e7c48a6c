"""Publish each lane by a transactional producer: Kafka refuses a relay that overslept a lease.

Invariants:
- A lane's producer takes over the lane's transactional id; then the relay looks at the lease again,
  and sends only rows read under the epoch found then. So the next holder of the lane also takes
  the id, and the former producer can do no more.
- A message reported as acknowledged has been committed.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from brokers import (
    Broker,
    BrokerUnavailable,
    Failed,
    Fenced,
    Message,
    Report,
    TransactionalPublisher,
)
from outbox.models import LANES
from relay.lanes import Lanes
from relay.timing import POSTGRESQL_TIMING
from saga_runtime.logs import get_logger

logger = get_logger(__name__)


class LanePublishers:
    """Publish by a producer for each lane.

    Messages are committed, in all lanes at a time, when the caller waits for reports.

    Args:
        broker: must have transactions.
        name: the beginning of the transactional ids; the end is the lane.
        lane_of: returns the lane of the message with a token.
        commit_timeout: seconds for a round of commits.

    Attributes:
        fenced: lanes in which Kafka has refused the relay, whatever the leases say.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        name: str,
        lane_of: Callable[[int], int],
        commit_timeout: float = POSTGRESQL_TIMING.commit_timeout,
    ) -> None:
        self._broker = broker
        self._name = name
        self._lane_of = lane_of
        self._commit_timeout = commit_timeout
        self._publishers: dict[int, TransactionalPublisher] = {}
        self._pending: Counter[int] = Counter()
        self._undecided: set[int] = set()
        self._reports: list[Report] = []
        self._threads = ThreadPoolExecutor(LANES, thread_name_prefix="lane")
        self.fenced: set[int] = set()

    def can_send(self, lane: int) -> bool:
        """Tell whether the lane's producer is ready, and the end of each commit is known."""
        return self._is_ready(lane) and lane not in self._undecided

    def take_over(self, lanes: Collection[int]) -> bool:
        """Take over the transactional ids of lanes, as far as not taken over before.

        Returns:
            Whether any id has been taken over.

        Raises:
            BrokerUnavailable: no lane has got an answer.
        """
        missing = [lane for lane in lanes if not self._is_ready(lane)]
        for lane in missing:
            if lane not in self._publishers:
                self._publishers[lane] = self._publisher(lane)
        errors = self._in_each(missing, lambda one: one.take_over())
        if errors and not any(map(self._is_ready, lanes)):
            raise next(iter(errors.values()))
        return bool(missing)

    def keep(self, lanes: Collection[int]) -> None:
        """Give up the producers of all lanes but the given."""
        self._give_up(self._publishers.keys() - lanes)

    def publish(self, message: Message, *, token: int) -> bool:
        """Queue a message with the lane's producer; see `Publisher.publish()`."""
        lane = self._lane_of(token)
        if not self._is_ready(lane):
            self._reports.append(Failed(token, "its lane has to be taken over first"))
            return False
        try:
            queued = self._publishers[lane].publish(message, token=token)
        except Fenced as error:
            self._reports.append(Failed(token, str(error)))
            self.fenced.add(lane)
            return False
        self._pending[lane] += 1
        return queued

    def reports(self, *, timeout: float) -> list[Report]:
        """Commit, if the caller is ready to wait, and return the delivery reports.

        Raises:
            BrokerUnavailable: no commit has succeeded, and the fate of the messages is unknown.
        """
        # Who is ready to wait has nothing more to send for now, so the transactions may end.
        errors = self._commit() if timeout else {}
        self._collect(+self._pending)
        self._give_up(self.fenced & self._publishers.keys())
        reports, self._reports = self._reports, []
        if errors and not reports:
            raise next(iter(errors.values()))
        return reports

    def commit(self, *, timeout: float) -> None:
        """Do nothing: `reports()` commits."""

    def purge(self) -> None:
        """Give up uncommitted messages."""
        self._in_each([*+self._pending], lambda one: one.purge())

    def close(self) -> None:
        """Close every producer, and end the threads."""
        self._in_each([*self._publishers], lambda one: one.close())
        self._threads.shutdown()

    def _publisher(self, lane: int) -> TransactionalPublisher:
        made = self._broker.publisher(transactional_id=f"{self._name}{lane}")
        return cast("TransactionalPublisher", made)  # what is made with an id is one

    def _is_ready(self, lane: int) -> bool:
        publisher = self._publishers.get(lane)
        return publisher is not None and publisher.is_ready

    def _commit(self) -> Mapping[int, BrokerUnavailable]:
        lanes = [*+self._pending]
        errors = self._in_each(lanes, lambda one: one.commit(timeout=self._commit_timeout))
        # Of a commit without an answer it is not known whether it has happened: asked again.
        self._undecided = {*self._undecided.difference(lanes), *errors}
        return errors

    def _collect(self, lanes: Iterable[int]) -> None:
        for lane in lanes:
            reports = self._publishers[lane].reports(timeout=0)
            self._pending[lane] -= len(reports)
            self._reports += reports

    def _give_up(self, lanes: Collection[int]) -> None:
        # Closing reports what was under way as failed; so reports come before the producer goes.
        self._in_each(lanes, lambda one: one.close())
        self._collect(lanes)
        for lane in lanes:
            if lane in self.fenced:
                logger.warning(
                    "lane %d: Kafka refuses this relay, another relay has the lane", lane
                )
            del self._publishers[lane], self._pending[lane]
            self._undecided.discard(lane)

    def _in_each(
        self, lanes: Collection[int], do: Callable[[TransactionalPublisher], None]
    ) -> dict[int, BrokerUnavailable]:
        """Call a method of the lanes' producers in parallel, and note the fenced lanes.

        Returns:
            The errors, by lane, of the calls that failed.
        """

        def guarded(lane: int) -> BrokerUnavailable | Fenced | None:
            try:
                do(self._publishers[lane])
            except (BrokerUnavailable, Fenced) as error:
                return error
            return None

        errors: dict[int, BrokerUnavailable] = {}
        for lane, error in zip(lanes, self._threads.map(guarded, lanes), strict=True):
            match error:
                case Fenced():
                    self.fenced.add(lane)
                case BrokerUnavailable():
                    errors[lane] = error
        return errors


class TransactionalLanes:
    """Hold lanes, each read only once the relay has the lane's transactional id too.

    Args:
        lanes: the leases.
    """

    def __init__(self, lanes: Lanes, publishers: LanePublishers) -> None:
        self._lanes = lanes
        self._publishers = publishers
        self._lost: set[int] = set()

    @property
    def held(self) -> Mapping[int, int]:
        """Return the leased lanes."""
        return self._lanes.held

    @property
    def draining(self) -> Collection[int]:
        """Return the lanes to give up, and the lanes with a producer that cannot send now."""
        closed = {lane for lane in self.held if not self._publishers.can_send(lane)}
        return closed.union(self._lanes.draining)

    def tend(self, *, busy: Collection[int]) -> set[int]:
        """Tend the leases, then take over the transactional ids of the lanes held.

        Returns:
            The lanes taken by other relays since the last call.

        Raises:
            BrokerUnavailable: the lost lanes are returned the next time.
        """
        # Kafka knows before the lease is due to be renewed that another relay has taken over.
        if self._publishers.fenced:
            self._look_again(busy)
            self._publishers.fenced.clear()
        else:
            self._lost |= self._lanes.tend(busy=busy)
        self._publishers.keep(self.held.keys())
        if self._publishers.take_over(self.held):
            # Between a claim and the takeover another relay may have claimed the lane.
            self._look_again(busy)
        lost, self._lost = self._lost, set()
        return lost

    def tend_soon(self) -> None:
        """Let the next `tend()` ask the database."""
        self._lanes.tend_soon()

    def release(self) -> None:
        """Give up every lease."""
        self._lanes.release()

    def _look_again(self, busy: Collection[int]) -> None:
        self._lanes.tend_soon()
        self._lost |= self._lanes.tend(busy=busy)
