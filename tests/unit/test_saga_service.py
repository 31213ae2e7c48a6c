import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connections

from brokers.memory import MemoryBroker
from sagas.consumer import SagaConsumer
from sagas.executor import Executor
from sagas.service import SagaService
from sagas.threads import Threads
from tests.unit.waiting import TIMEOUT, in_thread

pytestmark = pytest.mark.django_db(transaction=True)


def parts() -> tuple[SagaConsumer, Executor]:
    consumer = SagaConsumer(MemoryBroker(), topics=["a.commands"], group="g")
    return consumer, Executor(concurrency=2, lease=timedelta(seconds=10))


def broken(_: threading.Event) -> None:
    raise ZeroDivisionError


def test_it_stops_when_told() -> None:
    with in_thread(SagaService(*parts()).run):
        pass


@pytest.mark.parametrize("which", [0, 1], ids=["consumer", "executor"])
def test_where_one_part_dies_the_other_stops_and_the_error_is_raised(
    which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = parts()
    monkeypatch.setattr(both[which], "run", broken)
    stop = threading.Event()
    with pytest.raises(ZeroDivisionError):
        SagaService(*both).run(stop)
    # So the caller can tell it from having been told to stop.
    assert not stop.is_set()


class TestThreads:
    def run(self, work: Callable[[], object], threads: Threads) -> object:
        return asyncio.run(asyncio.wait_for(threads.run(work), TIMEOUT))

    def test_close_their_connections(self) -> None:
        threads = Threads(3, name="tests")
        seen: list[bool] = []

        def query() -> None:
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT 1")
            seen.append(True)

        self.run(query, threads)
        threads.close()
        assert seen == [True]

    def test_what_cannot_pass_through_a_future_is_wrapped(self) -> None:
        def stop() -> None:
            raise StopIteration("odd")

        threads = Threads(1, name="tests")
        with pytest.raises(RuntimeError, match="StopIteration"):
            self.run(stop, threads)
        threads.close()

    def test_closing_waits_no_longer_than_it_was_told(self) -> None:
        threads = Threads(2, name="tests")
        release = threading.Event()
        threads._pool.submit(release.wait, TIMEOUT)
        threads.close(timeout=0.05)
        release.set()

    def test_what_nobody_waits_for_any_more_is_not_begun(self) -> None:
        threads = Threads(1, name="tests")
        release = threading.Event()
        done: list[str] = []

        async def give_up() -> None:
            first = asyncio.ensure_future(threads.run(release.wait, TIMEOUT))
            second = asyncio.ensure_future(threads.run(done.append, "second"))
            await asyncio.sleep(0)  # both are handed in
            second.cancel()
            await asyncio.sleep(0)
            release.set()
            await first
            await threads.run(done.append, "third")

        asyncio.run(asyncio.wait_for(give_up(), TIMEOUT))
        threads.close()
        assert done == ["third"]

    def test_each_event_loop_has_its_answers(self) -> None:
        threads = Threads(3, name="tests")

        async def many() -> list[int]:
            return await asyncio.gather(*(threads.run(int, str(n)) for n in range(200)))

        for _ in range(3):
            assert asyncio.run(asyncio.wait_for(many(), TIMEOUT)) == list(range(200))
        threads.close()

    def test_an_answer_for_a_loop_that_has_gone_is_dropped(self) -> None:
        threads = Threads(1, name="tests")
        began, release = threading.Event(), threading.Event()

        def work() -> None:
            began.set()
            release.wait(TIMEOUT)

        async def give_up() -> None:
            waiting = asyncio.ensure_future(threads.run(work))
            await asyncio.to_thread(began.wait, TIMEOUT)
            waiting.cancel()

        asyncio.run(give_up())
        release.set()
        assert self.run(lambda: "another", threads) == "another"
        threads.close()
