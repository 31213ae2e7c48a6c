"""How long a partition waits in which the next record cannot be read."""

from brokers.kafka.broken_partitions import BrokenPartitions
from brokers.kafka.timing import KafkaTiming
from saga_runtime.backoff import Backoff

PLACE = ("orders", 3)
TIMING = KafkaTiming(retry=Backoff(first=2.0, longest=10.0))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def pause(broken: BrokenPartitions, clock: Clock, offset: int) -> int:
    """Let the partition wait; count the seconds until it is due."""
    broken.add(PLACE, offset, "no such codec")
    for seconds in range(100):
        if PLACE in broken.pop_due():
            return seconds
        clock.now += 1
    raise AssertionError("it is never due")


def test_the_pause_grows_at_one_offset_up_to_a_limit() -> None:
    clock = Clock()
    broken = BrokenPartitions(TIMING, clock=clock)
    assert [pause(broken, clock, 17) for _ in range(5)] == [2, 4, 8, 10, 10]


def test_another_offset_begins_anew() -> None:
    clock = Clock()
    broken = BrokenPartitions(TIMING, clock=clock)
    assert [pause(broken, clock, offset) for offset in (17, 17, 18, 17)] == [2, 4, 2, 2]


def test_a_partition_is_due_once() -> None:
    clock = Clock()
    broken = BrokenPartitions(TIMING, clock=clock)
    assert pause(broken, clock, 17) == 2
    assert not broken.pop_due()
