"""Tens of thousands of orders while everything is killed: none lost, doubled or out of order.

SOAK_ORDERS, SOAK_KILLS (of processes, or put to sleep past their lease) and SOAK_RESTARTS (of each
server) say how much, SOAK_SCALE all of them at once; SOAK_SEED deals the blows of an earlier run.
"""

import os
import random
import time
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import psycopg
import pytest
from testcontainers.community.postgres import PostgresContainer

from tests.e2e.full_service import FullService
from tests.e2e.service import until
from tests.ports import free_port
from tests.services import Server, do_without, docker_answers
from tests.soak import books
from tests.soak.blows import Blows, draw
from tests.soak.clients import Clients
from tests.soak.findings import Findings, look
from tests.soak.relays_beside import relays_beside
from tests.soak.scale import number

ORDERS = number("SOAK_ORDERS", 20_000)
KILLS = number("SOAK_KILLS", 200)
RESTARTS = number("SOAK_RESTARTS", 5)

pytestmark = [
    pytest.mark.soak,
    pytest.mark.postgres,
    pytest.mark.kafka,
    # Ten orders a second, a minute for each blow: far from what it takes.
    pytest.mark.timeout(1200 + ORDERS // 10 + 60 * (KILLS + 2 * RESTARTS)),
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

CONSUMERS = 3
# Payments take a while, so that many sagas are under way at any time.
GATEWAY = "simulated://?delay=0.05"
OPEN_AT_MOST = 300  # orders placed and not ended: more would only wait
TICK = 0.2  # seconds
STALLED = 600.0  # seconds without any order's end
MAX_CONNECTIONS = 200


@pytest.fixture
def postgres_server_url() -> Iterator[str]:
    """A PostgreSQL of this test's own, for `service`. It waits for its disk."""
    if not docker_answers():
        do_without("needs Docker, to kill a server and start it again")
    container = PostgresContainer(os.environ.get("POSTGRES_IMAGE", "postgres:17"))
    container.with_command(f"postgres -c max_connections={MAX_CONNECTIONS}")
    with container.with_bind_ports(5432, free_port()):
        yield str(container.get_connection_url(driver=None))


@pytest.fixture
def kafka_server_url(own_kafka: str) -> str:
    """For `service`."""
    return own_kafka


@pytest.fixture
def service(
    tmp_path: Path, postgres_database_url: str, kafka_broker_url: str
) -> Iterator[FullService]:
    """Not yet started, on an empty database."""
    service = FullService(
        tmp_path,
        database_url=postgres_database_url,
        broker_url=kafka_broker_url,
        consumers=CONSUMERS,
    )
    yield service
    service.clean_up()


def test_none_is_lost_none_doubled_none_out_of_order(
    service: FullService, postgres_server_url: str, kafka_server_url: str
) -> None:
    seed = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(1_000_000)))
    print(f"\n{ORDERS} orders (seed {seed})", flush=True)
    servers = {"postgres": Server(postgres_server_url), "kafka": Server(kafka_server_url)}
    drawn = draw(random.Random(seed), orders=ORDERS, kills=KILLS, restarts=RESTARTS)
    service.start(PAYMENT_GATEWAY_URL=GATEWAY)
    assert service.query("SHOW fsync") == service.query("SHOW synchronous_commit") == [("on",)]
    clients = Clients(service.url, count=ORDERS)
    began = time.monotonic()
    with relays_beside(service) as relays:
        blows = Blows(service, drawn, start_relay=relays.start, servers=servers)
        try:
            with clients.running():
                follow(service, clients, blows)
        finally:
            blows.undo()
        until(lambda: unfinished(service) == 0, timeout=STALLED)
        until(lambda: not service.query("SELECT id FROM outbox_message LIMIT 1"), timeout=STALLED)
        took = time.monotonic() - began
        found = look(service, orders=ORDERS, logs=chain(service.lines(), relays.lines()))
    report(seed, took, clients, blows, found)
    assert (found.lost, found.doubled, found.out_of_order) == ([], [], [])
    assert found.elsewise == []
    assert found.tracebacks == []
    assert sum(found.statuses.values()) == ORDERS
    assert blows.dealt.total() == KILLS + 2 * RESTARTS
    service.assert_nothing_was_done_twice()
    service.assert_audit_is_clean()
    print("audit: clean")


def follow(service: FullService, clients: Clients, blows: Blows) -> None:
    """Let the clients go on, and deal the blows, until there are no more of either."""
    ended, last_end = 0, time.monotonic()
    while not (clients.is_done and blows.are_over):
        assert clients.failed == []
        assert not service.has_ended, service.output[-3000:]
        under_way = unfinished(service)
        if under_way is not None and clients.placed - under_way > ended:
            ended, last_end = clients.placed - under_way, time.monotonic()
        assert time.monotonic() < last_end + STALLED, f"no order has ended since {ended} had"
        clients.allow(ended + OPEN_AT_MOST)
        blows.deal(ended)
        time.sleep(TICK)


def unfinished(service: FullService) -> int | None:
    """How many orders are under way; None while the database is away."""
    try:
        [(under_way,)] = service.query(books.UNFINISHED)
    except psycopg.OperationalError:
        return None
    return int(under_way)


def report(seed: int, took: float, clients: Clients, blows: Blows, found: Findings) -> None:
    met = {f"{target} {how}": count for (target, how), count in sorted(blows.dealt.items())}
    answers = {f"x {status or 'none'}": n for status, n in sorted(clients.answers.items())}
    print(
        f"{ORDERS} orders in {took:.0f} s, {ORDERS / took:.0f} a second: {told(found.statuses)}\n"
        f"answers: {told(answers)}\n"
        f"blows (seed {seed}): {told(met)}\n"
        f"sagas taken over: {found.taken_over}, workers fenced: {found.fenced} times\n"
        f"delivered again by Kafka: {told(found.repeated)}\n"
        f"lost {len(found.lost)}, doubled {len(found.doubled)},"
        f" out of order {len(found.out_of_order)}, otherwise wrong {len(found.elsewise)},"
        f" tracebacks {len(found.tracebacks)}"
    )


def told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
