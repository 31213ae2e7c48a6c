"""The blows of the soak test: as many as wanted, spread over the whole run, the same for a seed."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from tests.soak.blows import HARD, ORDERLY, PARTS, Blow, draw


def drawn(seed: int, *, orders: int = 20_000, kills: int = 200, restarts: int = 5) -> list[Blow]:
    return draw(random.Random(seed), orders=orders, kills=kills, restarts=restarts)[::-1]


@pytest.mark.parametrize("seed", range(5))
def test_as_many_as_wanted(seed: int) -> None:
    blows = drawn(seed)
    targets = Counter(blow.target for blow in blows)
    assert sum(targets[part] for part in PARTS) == 200
    for server in HARD:
        ways = Counter(blow.how == ORDERLY for blow in blows if blow.target == server)
        assert ways == {True: 2, False: 3}
    assert {(blow.target, blow.how) for blow in blows if blow.target in PARTS} == {
        (part, how) for part in PARTS for how in ("killed", "asleep")
    }


def test_a_single_restart_is_a_hard_one() -> None:
    blows = drawn(1, orders=500, kills=10, restarts=1)
    assert all(blow.how != ORDERLY for blow in blows if blow.target in HARD)


@pytest.mark.parametrize("seed", range(5))
def test_they_are_spread_over_the_run(seed: int) -> None:
    after = [blow.after for blow in drawn(seed)]
    assert after == sorted(after)
    assert all(later - earlier <= 200 for earlier, later in pairwise([0, *after, 20_000]))


def test_some_come_while_a_server_is_away() -> None:
    together = [
        later
        for earlier, later in pairwise(drawn(3))
        if earlier.target in HARD and later.after == earlier.after
    ]
    assert together
    assert all(blow.target in PARTS for blow in together)


def test_a_seed_deals_the_same_again() -> None:
    assert drawn(7) == drawn(7) != drawn(8)
