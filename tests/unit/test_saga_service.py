import threading
from datetime import timedelta

import pytest

from brokers.memory import MemoryBroker
from sagas.consumer import SagaConsumer
from sagas.executor import Executor
from sagas.service import SagaService
from tests.unit.waiting import in_thread

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
