"""A saga parks from whatever status its run has left it in."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from saga_runtime.backoff import Backoff
from sagas import NeedsAttention
from sagas.journal import writing
from sagas.journal.entries import Entry, Verdict, Wait
from sagas.models import Saga
from sagas.worker.executor import Executor
from tests.unit.sagas.saga_running import QUICK, Context, Register, begin, is_ended
from tests.unit.sagas.scripted_sagas import Part, Script
from tests.unit.waiting import in_thread, until


@pytest.mark.django_db(transaction=True)
def test_beside_a_rest_whose_commit_is_slow(register: Register, script: Script) -> None:
    """Two steps rest; while the journal is told, the rest of one ends, and it asks for a person."""
    parts = (Part(name, external=True, max_retries=9) for name in ("left", "right"))
    register(script.saga("two", *parts, parallel_roots=True))
    calls: list[str] = []
    is_slow = []

    def write(entries: Sequence[Entry]) -> list[Verdict]:
        if any(isinstance(change, Wait) for entry in entries for change in entry.changes):
            is_slow.append(True)
            time.sleep(2)  # the commit that takes longer than the rest of the other step
        return writing.write(entries)

    def act(name: str) -> None:
        async def call(_: Context) -> None:
            calls.append(name)
            if calls.count(name) == 1:
                raise ConnectionError("away")
            await asyncio.sleep(0.1)  # until the wait is committed: that entry was before
            raise NeedsAttention(f"{name}: look")

        script.acts[name] = call

    act("left")
    act("right")
    saga = begin("two")
    rest = Backoff(first=3.0, longest=3.0)
    # The one rests for 1.5 s, the other for 4.5 s.
    chance = iter([0.0, 1.0, *[0.5] * 1_000])
    timing = replace(QUICK, retry=rest)
    worker = Executor(concurrency=4, timing=timing, write=write, chance=chance.__next__)
    with in_thread(worker.run):
        until(lambda: is_ended(saga))
    found = Saga.objects.get(id=saga)
    assert is_slow, "nobody waited, so nothing was tried"
    assert found.status == "parked"
    assert found.epoch == 1, "another run had to park it"
    assert found.park_reason.endswith("look")
    assert max(calls.count(name) for name in ("left", "right")) == 2
