"""Threads that an event loop hands work to, and how their answers come back."""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections

from saga_runtime.database_threads import Threads, _Answers
from tests.unit.waiting import TIMEOUT

pytestmark = pytest.mark.django_db(transaction=True)


def run(work: Callable[[], object], threads: Threads) -> object:
    return asyncio.run(asyncio.wait_for(threads.run(work), TIMEOUT))


def test_close_their_connections() -> None:
    threads = Threads(3, name="tests")
    seen: list[bool] = []

    def query() -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
        seen.append(True)

    run(query, threads)
    threads.close()
    assert seen == [True]


def test_what_cannot_pass_through_a_future_is_wrapped() -> None:
    def stop() -> None:
        raise StopIteration("odd")

    threads = Threads(1, name="tests")
    with pytest.raises(RuntimeError, match="StopIteration"):
        run(stop, threads)
    threads.close()


def test_closing_waits_no_longer_than_it_was_told() -> None:
    threads = Threads(2, name="tests")
    release, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(TIMEOUT)

    async def give_up() -> None:
        hanging = asyncio.ensure_future(threads.run(hang))
        await asyncio.to_thread(begun.wait, TIMEOUT)
        hanging.cancel()

    asyncio.run(give_up())
    threads.close(timeout=0.05)
    assert not release.is_set()
    release.set()


def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
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


def test_each_event_loop_has_its_answers() -> None:
    threads = Threads(3, name="tests")

    async def many() -> list[int]:
        return await asyncio.gather(*(threads.run(int, str(n)) for n in range(200)))

    for _ in range(3):
        assert asyncio.run(asyncio.wait_for(many(), TIMEOUT)) == list(range(200))
    threads.close()


class TestAnswers:
    def test_one_that_nobody_waits_for_holds_up_no_other(self) -> None:
        async def main() -> int:
            loop = asyncio.get_running_loop()
            answers = _Answers(loop)
            gone, other = loop.create_future(), loop.create_future()
            gone.cancel()
            answers.add(gone, 1, None)
            answers.add(other, 2, None)
            return await asyncio.wait_for(other, TIMEOUT)

        assert asyncio.run(main()) == 2

    def test_one_that_comes_as_the_last_is_taken_wakes_the_loop_again(self) -> None:
        async def main() -> int:
            loop = asyncio.get_running_loop()
            answers = _Answers(loop)
            late = [loop.create_future()]
            waited_for = late[0]

            class Emptied(deque[Any]):
                def __len__(self) -> int:
                    length = super().__len__()
                    if not length and late:
                        answers.add(late.pop(), 2, None)  # behind the look
                    return length

            answers._ready = Emptied()
            answers.add(loop.create_future(), 1, None)
            return await asyncio.wait_for(waited_for, TIMEOUT)

        assert asyncio.run(main()) == 2

    def test_one_for_a_loop_that_is_closed_is_dropped(self) -> None:
        loop = asyncio.new_event_loop()
        answers, answer = _Answers(loop), loop.create_future()
        loop.close()
        answers.add(answer, 1, None)

    def test_two_loops_at_once_have_each_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        threads = Threads(2, name="tests")
        others: list[Callable[[], Any]] = [lambda: asyncio.run(threads.run(int, "2"))]

        def copy_context() -> Any:
            if others:
                thread = threading.Thread(target=others.pop())
                thread.start()
                thread.join(TIMEOUT)
            return contextvars.copy_context()

        monkeypatch.setattr("saga_runtime.database_threads.copy_context", copy_context)

        async def main() -> bool:
            return await asyncio.wait_for(threads.run(threading.Event().wait, 0.05), TIMEOUT)

        try:
            assert asyncio.run(main()) is False
        finally:
            threads.close()
