"""Messages that Kafka refuses, among others: their keys are parked, and are put right."""

from pathlib import Path

import pytest

from tests.e2e.service import until
from tests.relaying.bad_messages import GOOD, KINDS, NO_TOPIC, POISON, TOO_LARGE, put
from tests.relaying.reader import Reader
from tests.relaying.stage import Stage

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

WHY = ("--why", "a test")
Ids = dict[str, list[int]]


@pytest.fixture
def kafka_server_url(own_kafka: str) -> str:
    """For `stage`."""
    return own_kafka


@pytest.mark.parametrize(
    "client", ["kafka-python", pytest.param("librdkafka", marks=pytest.mark.soak)]
)
def test_their_keys_are_parked_and_put_right(stage: Stage, client: str, tmp_path: Path) -> None:
    with stage.reader().running() as reader:
        relay = stage.relay(SAGAZ_KAFKA_CLIENT=client)
        with stage.writing_meanwhile(seconds=5, rate=100, writers=2) as writing:
            until(lambda: len(reader.seen), reaches=50, timeout=60)
            ids = {kind.name: put(stage, kind.name, (GOOD, kind, GOOD)) for kind in KINDS}
            until(lambda: len(parked(stage)), reaches=2 * len(KINDS), timeout=60)
        until(lambda: not stage.waiting(), timeout=60)
        until(lambda: not reader.lost(writing.committed()), timeout=30)
        assert parked(stage) == {id_ for first, *rest in ids.values() for id_ in rest}
        assert reader.seen == {*writing.committed(), *(first for first, *_ in ids.values())}

        put_right(stage, ids, tmp_path)
        sent = {id_ for each in ids.values() for id_ in each}
        sent -= {ids[POISON.name][1], ids[NO_TOPIC.name][1]}
        until(lambda: not reader.lost(sent), timeout=30)
    assert reader.seen == {*writing.committed(), *sent}
    assert reader.out_of_order == []
    assert relay.is_running
    assert "Traceback" not in relay.output


def parked(stage: Stage) -> set[int]:
    return {id_ for (id_,) in stage.query("SELECT id FROM outbox_parked")}


def put_right(stage: Stage, ids: Ids, directory: Path) -> None:
    """Edit the one that is too large, leave out the one that is none, and make the topic."""
    smaller = directory / "smaller.json"
    smaller.write_text('{"smaller": true}')
    stage.manage("outbox", "edit", str(ids[TOO_LARGE.name][1]), "--payload", str(smaller), *WHY)
    stage.manage("outbox", "skip", str(ids[POISON.name][1]), *WHY)
    stage.add_topic(NO_TOPIC.topic)
    with Reader(stage.broker_url, [NO_TOPIC.topic]).running() as reader:
        # For a few seconds the relay takes the topic's absence for known, and parks it again.
        until(lambda: retried(stage, reader, ids[NO_TOPIC.name][1]), timeout=60)
    until(lambda: not parked(stage) and not stage.waiting(), timeout=30)


def retried(stage: Stage, reader: Reader, id_: int) -> bool:
    if parked(stage):
        stage.manage("outbox", "retry", NO_TOPIC.name, *WHY)
    return id_ in reader.seen
