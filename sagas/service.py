import threading
from datetime import timedelta

from django.conf import settings

from brokers import Broker
from sagas.consumer import SagaConsumer
from sagas.executor import Executor


class SagaService:
    """A consumer that accepts commands and an executor that runs them, as one."""

    def __init__(self, consumer: SagaConsumer, executor: Executor) -> None:
        self._consumer = consumer
        self._executor = executor
        self._errors: list[BaseException] = []

    @classmethod
    def from_settings(cls, broker: Broker, *, concurrency: int) -> "SagaService":
        executor = Executor(concurrency=concurrency, lease=timedelta(seconds=settings.SAGA_LEASE))
        consumer = SagaConsumer(
            broker,
            topics=settings.SAGA_TOPICS,
            group=settings.SAGA_CONSUMER_GROUP,
            on_new=executor.wake,
        )
        return cls(consumer, executor)

    def run(self, stop: threading.Event) -> None:
        """Run both until `stop` is set. If one dies the other stops, and its error is raised."""
        accepting = threading.Thread(target=self._accept, args=(stop,), name="inbox")
        accepting.start()
        try:
            self._executor.run(stop)
        finally:
            stop.set()
            accepting.join()
        if self._errors:
            raise self._errors[0]

    def _accept(self, stop: threading.Event) -> None:
        try:
            self._consumer.run(stop)
        except BaseException as error:  # noqa: BLE001 - raised again by run(), in the main thread
            self._errors.append(error)
            stop.set()
