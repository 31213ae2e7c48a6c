import threading

import pytest

from brokers.memory import MemoryBroker
from sagas.inbox.consumer import SagaConsumer
from sagas.worker.executor import Executor
from sagas.worker.service import SagaService
from tests.unit.waiting import TIMEOUT, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)


def parts() -> tuple[SagaConsumer, Executor]:
    consumer = SagaConsumer(MemoryBroker(), topics=["a.commands"], group="g")
    return consumer, Executor(concurrency=2)


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


def test_a_part_that_ends_by_itself_ends_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    both = parts()
    monkeypatch.setattr(both[1], "run", lambda _: None)
    with pytest.raises(RuntimeError, match="the executor ended by itself"):
        SagaService(*both).run(threading.Event())


def test_a_part_that_is_blocked_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As by an `async def` step that calls a blocking function, which blocks all others too."""
    release = threading.Event()
    both = parts()
    monkeypatch.setattr(both[1], "run", lambda _: release.wait(TIMEOUT * 3))
    try:
        with in_thread(SagaService(*both, end_within=0.2).run):
            pass
        assert "the executor does not end: a step or a trigger blocks it" in caplog.text
        [left] = [each for each in threading.enumerate() if each.name == "executor"]
        assert left.daemon
    finally:
        release.set()
        until(lambda: not left.is_alive())
