"""Put the parts of a relay together, as the database and the broker want."""

import os
import random
import socket
import time
import uuid
from collections.abc import Callable

from django.db import connection

from brokers import Broker
from outbox.models import LANES
from relay.cloudevents import message_writer
from relay.cycle import Cycle
from relay.deleting import Deleter
from relay.failures import Failures
from relay.in_flight import InFlight
from relay.lanes import EveryLane, Lanes, LeasedLanes
from relay.loop import Relay
from relay.parking import ParkedKeys
from relay.postgresql_store import PostgreSQLStore
from relay.publishing import RowPublisher
from relay.read_ahead import ReadAhead
from relay.refusals import Refusal
from relay.resting_lanes import RestingLanes
from relay.segments import NoSegments, RotatingSegments, Segments
from relay.sqlite_store import SQLiteStore
from relay.store import Store
from relay.suspects import Suspects
from relay.timing import POSTGRESQL_TIMING, SQLITE_TIMING, Timing
from relay.transactions import LanePublishers, TransactionalLanes
from relay.wake_ups import WakeUps
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage

logger = get_logger(Relay.__module__)


def assemble_relay(
    broker: Broker,
    *,
    source: str,
    batch_size: int = 1000,
    lanes_max: int = LANES,
    transactional: bool = False,
    timing: Timing | None = None,
    store: Store | None = None,
    lanes: Lanes | None = None,
    alive: Callable[[], None] = lambda: None,
    ready: Callable[[], None] = lambda: None,
    woken: WakeUps | None = None,
    jitter: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
) -> Relay:
    """Assemble a relay from Django's default database to a broker.

    Args:
        broker: where the messages go.
        source: the CloudEvents source of every message.
        batch_size: rows read and published at a time.
        lanes_max: how many lanes the relay takes at most, on PostgreSQL.
        transactional: one transactional producer for each lane; the broker must have transactions.
        timing: all intervals and timeouts; by default as the database wants.
        store: by default the database's, under a new name.
        lanes: lanes to read; by default leased lanes, and on SQLite all.
        alive: called in each cycle.
        ready: called once, as soon as the relay works; see `Relay`.
        woken: set from outside when there is something new to read.
        jitter: 0 to 1, spreads the pauses of several relays.
        clock: seconds.
    """
    timing = timing or _timing()
    store = store or open_store(relay_name())
    # One name for both: the store checks each statement against the leases of this owner.
    lanes = lanes or _lanes(store.owner, lanes_max=lanes_max, timing=timing, clock=clock)
    in_flight = InFlight()
    publishers: LanePublishers | None = None
    if transactional:
        publishers = LanePublishers(
            broker,
            name=f"{source}.lane-",
            lane_of=lambda token: in_flight.rows[token].lane,
            commit_timeout=timing.commit_timeout,
        )
        lanes = TransactionalLanes(lanes, publishers)
    suspects = Suspects(round_seconds=timing.suspects_round, clock=clock)
    resting = RestingLanes(backoff=timing.lane_rest, clock=clock)
    parked = ParkedKeys(store)

    def outage(server: str) -> Outage:
        return Outage(server, logger=logger, clock=clock, jitter=jitter, backoff=timing.outage)

    broker_outage = outage(f"the broker {broker.name}")
    cycle = Cycle(
        store,
        lanes=lanes,
        segments=_segments(timing=timing, clock=clock),
        in_flight=in_flight,
        reader=ReadAhead(
            store, lanes, in_flight, batch_size=batch_size, suspects=suspects, resting=resting
        ),
        publisher=RowPublisher(
            broker, in_flight, write_message=message_writer(source), publisher=publishers
        ),
        deleter=Deleter(store),
        parked=parked,
        suspects=suspects,
        failures=Failures(in_flight, parked=parked, suspects=suspects, resting=resting),
        broker_outage=broker_outage,
        batch_size=batch_size,
        timing=timing,
        clock=clock,
    )
    return Relay(
        cycle,
        broker_outage=broker_outage,
        database_outage=outage("the database"),
        refusal=Refusal(timing=timing, clock=clock),
        timing=timing,
        alive=alive,
        ready=ready,
        woken=woken or WakeUps(),
        clock=clock,
    )


def relay_name() -> str:
    """Return a name that no relay has had before."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"[-64:]


def open_store(owner: str) -> PostgreSQLStore | SQLiteStore:
    """Return the store of the default database, for the relay of a name."""
    return PostgreSQLStore(owner) if _is_postgresql() else SQLiteStore(owner)


def _lanes(
    owner: str, *, lanes_max: int, timing: Timing, clock: Callable[[], float]
) -> LeasedLanes | EveryLane:
    if _is_postgresql():
        return LeasedLanes(owner, lease=timing.lease, lanes_max=lanes_max, clock=clock)
    return EveryLane()


def _segments(*, timing: Timing, clock: Callable[[], float]) -> Segments:
    return RotatingSegments(timing=timing, clock=clock) if _is_postgresql() else NoSegments()


def _timing() -> Timing:
    return POSTGRESQL_TIMING if _is_postgresql() else SQLITE_TIMING


def _is_postgresql() -> bool:
    return connection.vendor == "postgresql"
