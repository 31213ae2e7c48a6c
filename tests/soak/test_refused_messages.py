"""Messages that Kafka refuses, again and again: how long do all the others wait for it."""

import time

import pytest

from tests.e2e.service import until
from tests.relaying.bad_messages import GOOD, KINDS, put
from tests.relaying.stage import Stage
from tests.soak.scale import seconds

pytestmark = [
    pytest.mark.soak,
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

SECONDS = seconds(60, least=15)
EVERY = 3.0  # seconds, one of each kind
WARM_UP = 5.0
KEYS = 50  # good ones: some are in the same lane as a bad one
LONGEST = 1.0  # second


@pytest.fixture
def kafka_server_url(own_kafka: str) -> str:
    """For `stage`."""
    return own_kafka


@pytest.mark.parametrize("client", ["kafka-python", "librdkafka"])
def test_other_keys_wait_for_less_than_a_second(stage: Stage, client: str) -> None:
    keys = [f"key-{number}" for number in range(KEYS)]
    rounds = 0
    with stage.reader().running() as reader:
        stage.relay(SAGAZ_KAFKA_CLIENT=client).await_ready()
        with stage.writing(seconds=WARM_UP + SECONDS, rate=100, writers=2, keys=KEYS) as writing:
            until(lambda: len(reader.seen), reaches=50, timeout=60)
            time.sleep(WARM_UP)
            began = time.time()
            usual = reader.slowest(keys=keys, since=began - WARM_UP / 2)
            while not writing.is_over:
                for kind in KINDS:
                    put(stage, f"{kind.name}-{rounds}", (GOOD, kind, GOOD))
                rounds += 1
                time.sleep(EVERY)
        until(lambda: not reader.lost(writing.committed()), timeout=60)
        until(lambda: not stage.waiting(), timeout=60)
    slowest = reader.slowest(keys=keys, since=began)
    [(parked,)] = stage.query("SELECT count(DISTINCT key) FROM outbox_parked")
    print(
        f"\n{client}: {rounds} times one too large, one without a topic and one that is poison;"
        f" {parked} keys parked; another key's message waited {slowest:.2f} s at most"
        f" ({usual:.2f} s before that), out of order {len(reader.out_of_order)}"
    )
    assert parked == rounds * len(KINDS)
    assert reader.out_of_order == []
    assert slowest < LONGEST
