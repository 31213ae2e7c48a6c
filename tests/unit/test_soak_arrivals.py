"""The checks of the soak tests see what they are for: each fault is put into what Kafka holds."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest
from kafka.consumer.fetcher import ConsumerRecord

from tests.soak.arrivals import DOUBLED, LOST, OUT_OF_ORDER, Arrivals, arrivals

COMMANDS, EVENTS = "orders.commands", "orders.events"
PLACED = [("A", "fulfilled", False), ("B", "cancelled", True)]

Sent = tuple[str, str, str, int]  # topic, key, type, sequence, which is the id, too
ALL: list[Sent] = [
    (COMMANDS, "A", "orders.place", 1),
    (COMMANDS, "B", "orders.place", 2),
    (COMMANDS, "B", "orders.cancel", 3),
    (COMMANDS, "B", "orders.cancel", 4),
    (EVENTS, "A", "order.fulfilled", 5),
    (EVENTS, "B", "order.cancelled", 6),
]


def received(
    sent: Sent, *, offset: int, partition: int = 0, value: bytes = b"{}"
) -> ConsumerRecord:
    topic, key, type_, sequence = sent
    headers = {"ce_id": f"id-{sequence}", "ce_type": type_, "ce_sequence": f"{sequence:020}"}
    return ConsumerRecord(
        topic,
        partition,
        0,
        offset,
        0,
        0,
        key.encode(),
        value,
        [(name, text.encode()) for name, text in headers.items()],
        None,
        0,
        0,
        0,
    )


def found(tmp_path: Path, records: Sequence[ConsumerRecord]) -> dict[str, list[tuple[object, ...]]]:
    with arrivals(tmp_path / "arrivals.sqlite3") as held:
        fill(held, records)
        assert sum(held.repeated().values()) == len(records) - len(
            {dict(record.headers)["ce_id"] for record in records}
        )
        checks = {"lost": LOST, "doubled": DOUBLED, "out of order": OUT_OF_ORDER}
        return {name: rows for name, sql in checks.items() if (rows := held.find(sql))}


def fill(held: Arrivals, records: Sequence[ConsumerRecord]) -> None:
    for topic in (COMMANDS, EVENTS):
        held.take(topic, [record for record in records if record.topic == topic])
    held.compare_with(PLACED)


def in_this_order(*sent: Sent) -> list[ConsumerRecord]:
    offsets = count()
    return [received(each, offset=next(offsets)) for each in sent]


def test_nothing_is_wrong(tmp_path: Path) -> None:
    assert found(tmp_path, in_this_order(*ALL)) == {}


def test_a_batch_sent_again_is_no_fault(tmp_path: Path) -> None:
    place, cancel = ALL[1], ALL[2]
    assert found(tmp_path, in_this_order(ALL[0], place, cancel, place, cancel, *ALL[3:])) == {}


@pytest.mark.parametrize("missing", [0, 1, 4, 5])
def test_lost(tmp_path: Path, missing: int) -> None:
    assert [*found(tmp_path, in_this_order(*ALL[:missing], *ALL[missing + 1 :]))] == ["lost"]


def test_every_cancel_lost(tmp_path: Path) -> None:
    assert [*found(tmp_path, in_this_order(*ALL[:2], *ALL[4:]))] == ["lost"]


def test_an_event_of_another_end(tmp_path: Path) -> None:
    other = (EVENTS, "B", "order.fulfilled", 6)
    assert [*found(tmp_path, in_this_order(*ALL[:5], other))] == ["lost"]


@pytest.mark.parametrize("again", [ALL[0], ALL[5], (EVENTS, "B", "order.rejected", 6)])
def test_said_twice(tmp_path: Path, again: Sent) -> None:
    assert [*found(tmp_path, in_this_order(*ALL, (*again[:3], 7)))] == ["doubled"]


def test_of_no_order(tmp_path: Path) -> None:
    assert [*found(tmp_path, in_this_order(*ALL, (COMMANDS, "C", "orders.place", 7)))] == [
        "doubled"
    ]


def test_changed_in_repetition(tmp_path: Path) -> None:
    changed = received(ALL[5], offset=6, value=b"other")
    assert [*found(tmp_path, [*in_this_order(*ALL), changed])] == ["doubled"]


@pytest.mark.parametrize("order", [(2, 1, 3), (1, 3, 2)])
def test_a_later_message_came_first(tmp_path: Path, order: tuple[int, ...]) -> None:
    sent = [ALL[0], *(ALL[number] for number in order), *ALL[4:]]
    assert [*found(tmp_path, in_this_order(*sent))] == ["out of order"]


def test_a_key_in_two_partitions(tmp_path: Path) -> None:
    records = in_this_order(*ALL[:3], *ALL[4:])
    elsewhere = received(ALL[3], offset=9, partition=1)
    assert [*found(tmp_path, [*records, elsewhere])] == ["out of order"]
