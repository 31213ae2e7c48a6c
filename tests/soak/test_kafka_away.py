"""Kafka is away for ten minutes while messages come in."""

import time

import pytest

from tests.e2e.service import until
from tests.relaying.relays import RelayProcess
from tests.relaying.stage import Stage
from tests.services import Server
from tests.soak.scale import seconds

pytestmark = [
    pytest.mark.soak,
    pytest.mark.postgres,
    pytest.mark.kafka,
    pytest.mark.timeout(2400),
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

AWAY = seconds(600, least=30)
BEFORE = 20.0  # seconds of writing
RATE = 200  # messages a second
CLIENTS = ("kafka-python", "librdkafka")
SETTLED = 0.25  # of the outage: what is queued is queued by then
MAY_GROW = 8.0  # MiB


@pytest.fixture
def kafka_server_url(own_kafka: str) -> str:
    """For `stage`."""
    return own_kafka


def test_nothing_is_parked_and_all_comes_in_order_after(
    stage: Stage, kafka_server_url: str
) -> None:
    kafka = Server(kafka_server_url)
    options = {"seconds": BEFORE + AWAY, "rate": RATE, "together": 5, "writers": 2}
    with stage.reader().running() as reader:
        relays = {client: stage.relay(SAGAZ_KAFKA_CLIENT=client) for client in CLIENTS}
        # Each with its half of the lanes: those with something under way are not handed over.
        until(lambda: lanes_of_each(stage) == [16, 16], timeout=150)
        with stage.writing(**options) as writing:
            until(lambda: len(reader.seen), reaches=100, timeout=60)
            kafka.stop()
            used = {client: relay.cpu_seconds() for client, relay in relays.items()}
            memory = memory_until(time.monotonic() + AWAY, relays)
            used = {client: relays[client].cpu_seconds() - used[client] for client in CLIENTS}
            waited = len(stage.waiting())
            kafka.start()
            back = time.monotonic()
        committed = writing.committed()
        until(lambda: not stage.waiting(), timeout=600)
        drained = time.monotonic() - back
        until(lambda: not reader.lost(committed), timeout=30)
    for client, samples in memory.items():
        settled = samples[int(len(samples) * SETTLED) :]
        print(
            f"\n{client}: memory {samples[0]:.1f} MiB at first, then {min(settled):.1f} to"
            f" {max(settled):.1f}; {100 * used[client] / AWAY:.1f} % of a core"
        )
        assert max(settled) - min(settled) < MAY_GROW
    print(
        f"away for {AWAY:.0f} s: {waited} messages waited, all {len(committed)} were there"
        f" {drained:.1f} s after; out of order {len(reader.out_of_order)},"
        f" repeated {reader.repeated.total()}, parked {parked(stage)}"
    )
    assert set(committed) == reader.seen
    assert reader.out_of_order == []
    assert parked(stage) == 0
    assert all(relay.is_running for relay in relays.values())
    assert "Traceback" not in stage.logs()
    assert stage.logs().count("does not answer, trying on") >= len(CLIENTS)


def lanes_of_each(stage: Stage) -> list[int]:
    rows = stage.query("SELECT count(*) FROM outbox_lane WHERE owner <> '' GROUP BY owner")
    return [count for (count,) in rows]


def parked(stage: Stage) -> int:
    [(count,)] = stage.query("SELECT count(*) FROM outbox_parked")
    return int(count)


def memory_until(end: float, relays: dict[str, RelayProcess]) -> dict[str, list[float]]:
    """What each uses, every two seconds."""
    samples: dict[str, list[float]] = {client: [] for client in relays}
    while time.monotonic() < end:
        for client, relay in relays.items():
            samples[client].append(relay.memory())
        time.sleep(2.0)
    return samples
