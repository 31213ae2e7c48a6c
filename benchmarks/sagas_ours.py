"""Run the cases of `benchmarks/sagas.py` that are sagaz's, Django's and this project's."""

import asyncio
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, ClassVar

from django.db import connection, connections, models, transaction
from django.db.backends.postgresql.base import DatabaseWrapper
from sagaz import Saga as SagaClass
from sagaz import action
from sagaz.core.decorators import ExecutionEngine

from benchmarks.measuring import Observer
from sagas.definition import discovery
from sagas.definition.identity import saga_id
from sagas.journal import codec
from sagas.models import Saga, SagaStatus
from sagas.run.timing import Timing
from sagas.worker.executor import Executor

Context = dict[str, Any]

LEASE = timedelta(seconds=30)
POLL = 0.02
STILL_ACTIVE = (  # as the index has it
    "SELECT EXISTS (SELECT FROM sagas_saga WHERE NOT paused AND status IN"
    " ('pending', 'running', 'waiting', 'compensating', 'cancelling'))"
)


class Entry(models.Model):
    """Keep what a local step writes."""

    saga = models.CharField(max_length=64)
    step = models.CharField(max_length=16)

    objects: ClassVar[models.Manager["Entry"]] = models.Manager()

    class Meta:
        app_label = "benchmarks"

    def __str__(self) -> str:
        return f"{self.saga} {self.step}"


class Calls(SagaClass):
    """Run three external steps, which call nothing."""

    saga_name = "benchmark-calls"

    @action("one")
    async def one(self, ctx: Context) -> Context:
        """Run the first step."""
        return {"one": ctx["key"]}

    @action("two", depends_on=["one"])
    async def two(self, ctx: Context) -> Context:
        """Run the second step."""
        return {"two": ctx["key"]}

    @action("three", depends_on=["two"])
    async def three(self, ctx: Context) -> Context:
        """Run the third step."""
        return {"three": ctx["key"]}


class Writes(SagaClass):
    """Run three local steps, with one INSERT each."""

    saga_name = "benchmark-writes"

    @action("one")
    def one(self, ctx: Context) -> Context:
        """Run the first step."""
        return _write(ctx["key"], "one")

    @action("two", depends_on=["one"])
    def two(self, ctx: Context) -> Context:
        """Run the second step."""
        return _write(ctx["key"], "two")

    @action("three", depends_on=["two"])
    def three(self, ctx: Context) -> Context:
        """Run the third step."""
        return _write(ctx["key"], "three")


def _write(key: str, step: str) -> Context:
    Entry.objects.create(saga=key, step=step)
    return {step: key}


def create_table() -> None:
    """Create the table of entries."""
    with connection.schema_editor() as editor:
        editor.create_model(Entry)
    _disconnect()


def _disconnect() -> None:
    wrapper = connections["default"]
    assert isinstance(wrapper, DatabaseWrapper)  # noqa: S101
    wrapper.close()
    wrapper.close_pool()


class _Ours:
    """Prepare Django's database, which is empty when a case begins."""

    def __init__(self) -> None:
        self.database = str(connection.settings_dict["NAME"])
        self._keys: list[str] = []

    def prepare(self, count: int) -> None:
        """Empty the tables, and choose the keys."""
        self._keys = [uuid.uuid4().hex for _ in range(count)]
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE sagas_saga, benchmarks_entry CASCADE")

    def close(self) -> None:
        """Close all connections."""
        _disconnect()


class Bare(_Ours):
    """Run sagaz's engine alone, without storage."""

    title = "bare sagaz in memory, three async steps"

    def __init__(self, *, concurrency: int) -> None:
        super().__init__()
        self._concurrency = concurrency

    def run(self) -> None:
        """Run the sagas, some at a time."""
        asyncio.run(self._in_slices())

    async def _in_slices(self) -> None:
        for first in range(0, len(self._keys), self._concurrency):
            keys = self._keys[first : first + self._concurrency]
            await asyncio.gather(
                *(ExecutionEngine(Calls()).run({"key": key}, None) for key in keys)
            )


class Durable(_Ours):
    """Run sagas by an executor in a thread."""

    def __init__(
        self, saga_class: type[SagaClass], observer: Observer, *, concurrency: int
    ) -> None:
        super().__init__()
        self._type = discovery.register(saga_class)  # it is in no app's sagas.py
        kind = "external" if saga_class is Calls else "local"
        self.title = f"durable, three {kind} steps"
        self._observer = observer
        self._concurrency = concurrency
        self._stop = threading.Event()
        self._thread = threading.Thread()

    def prepare(self, count: int) -> None:
        """Insert the sagas, and make the executor."""
        super().prepare(count)
        Saga.objects.bulk_create(self._row(key) for key in self._keys)
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE sagas_saga")
        self._stop.clear()
        executor = Executor(
            concurrency=self._concurrency, timing=Timing(lease=LEASE.total_seconds())
        )
        self._thread = threading.Thread(target=executor.run, args=(self._stop,), daemon=True)

    def run(self) -> None:
        """Run the executor until no saga is active."""
        self._thread.start()
        while self._observer.ask(STILL_ACTIVE):
            if not self._thread.is_alive():
                raise SystemExit("the executor has died")
            time.sleep(POLL)

    def close(self) -> None:
        """Stop the executor, and check that all sagas have completed."""
        self._stop.set()
        self._thread.join()
        completed = Saga.objects.filter(status=SagaStatus.COMPLETED).count()
        if completed != len(self._keys):
            raise SystemExit(f"{completed} of {len(self._keys)} sagas have completed")
        super().close()

    def _row(self, key: str) -> Saga:
        return Saga(
            id=saga_id(self._type.name, key),
            name=self._type.name,
            key=key,
            version=self._type.version,
            definition_hash=self._type.definition_hash,
            input=codec.encode({"key": key}),
        )


class Transactions(_Ours):
    """Write as three local steps do, by plain threads, without a journal."""

    def __init__(self, *, threads: int) -> None:
        super().__init__()
        self.title = f"three transactions, no journal, {threads} threads"
        self._threads = threads

    def run(self) -> None:
        """Write all keys."""
        parts = [self._keys[n :: self._threads] for n in range(self._threads)]
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(_write_all, parts))


def _write_all(keys: list[str]) -> None:
    try:
        for key in keys:
            for step in ("one", "two", "three"):
                with transaction.atomic():
                    _write(key, step)
    finally:
        connections.close_all()
