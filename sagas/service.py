import threading
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db import connection

from brokers import Broker
from sagas.consumer import SagaConsumer
from sagas.executor import Executor
from sagas.hooks import call_start_hooks

LOOK_EVERY = 0.1  # seconds between two looks at whether a part has died


_ON_SQLITE = {"journal_threads": 1, "call_threads": 2}
_ON_A_SERVER = {"journal_threads": 4, "call_threads": 8}


class SagaService:
    """A consumer that accepts commands and an executor that runs them, as one."""

    def __init__(self, consumer: SagaConsumer, executor: Executor) -> None:
        self._consumer = consumer
        self._executor = executor
        self._errors: list[BaseException] = []

    @classmethod
    def from_settings(
        cls, broker: Broker, *, concurrency: int, alive: Callable[[], None] = lambda: None
    ) -> "SagaService":
        call_start_hooks()
        executor = Executor(
            concurrency=concurrency,
            lease=timedelta(seconds=settings.SAGA_LEASE),
            # SQLite writes one at a time: more threads would only wait for each other.
            **(_ON_SQLITE if connection.vendor == "sqlite" else _ON_A_SERVER),
        )
        consumer = SagaConsumer(
            broker,
            topics=settings.SAGA_TOPICS,
            group=settings.SAGA_CONSUMER_GROUP,
            on_new=executor.wake,
            alive=alive,
        )
        return cls(consumer, executor)

    def run(self, stop: threading.Event) -> None:
        """Run both until `stop` is set. If one dies the other stops, and its error is raised; the
        caller's event is left alone, so that it can tell this from having been told to stop."""
        halt = threading.Event()
        parts = [
            threading.Thread(target=self._guard, args=(self._consumer.run, halt), name="inbox"),
            threading.Thread(target=self._guard, args=(self._executor.run, halt), name="executor"),
        ]
        for part in parts:
            part.start()
        try:
            while not stop.wait(LOOK_EVERY) and not self._errors:
                pass
        finally:
            halt.set()
            for part in parts:
                part.join()
        if self._errors:
            raise self._errors[0]

    def _guard(self, run: Callable[[threading.Event], None], halt: threading.Event) -> None:
        try:
            run(halt)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._errors.append(error)
