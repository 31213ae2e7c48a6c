"""Drain outboxes of other projects: each with its own worker, from PostgreSQL to Kafka, acks=all.

Each is set up as its documentation says, with the options that were the fastest here.
"""

import asyncio
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import psycopg

from benchmarks.draining import PATIENCE, Cost, Job, measured
from benchmarks.outbox_filling import FASTSTREAM, RELIABLE, SAGAZ, fill

BATCH = 500
FASTSTREAM_WORKERS = 24  # each holds a connection
RELIABLE_THREADS = 8


def sagaz(job: Job) -> Cost:
    """`OutboxWorker`: claims a batch by UPDATE, publishes it together, one UPDATE for each."""
    from sagaz.core.outbox.brokers.kafka import KafkaBroker, KafkaBrokerConfig
    from sagaz.core.outbox.types import OutboxConfig
    from sagaz.core.outbox.worker import OutboxWorker
    from sagaz.core.storage.backends.postgresql.outbox import PostgreSQLOutboxStorage

    async def drain() -> Cost:
        storage = PostgreSQLOutboxStorage(job.database)
        await storage.initialize()
        fill(job.database, SAGAZ, topic=job.topic, count=job.count)
        config = KafkaBrokerConfig(bootstrap_servers=_servers(job), compression_type=None)
        broker = KafkaBroker(config)
        await broker.connect()
        worker = OutboxWorker(storage, broker, OutboxConfig(batch_size=BATCH))
        cost = await _measured(job.count, lambda: _until_empty(worker.process_batch))
        await broker.close()
        await storage.close()
        return cost

    return asyncio.run(drain())


def faststream(job: Job) -> Cost:
    """A subscriber that hands each row to a Kafka publisher; deletes are gathered."""
    from faststream.kafka import KafkaBroker, KafkaResponse
    from faststream_outbox import OutboxBroker, make_outbox_table
    from sqlalchemy import MetaData, event
    from sqlalchemy.ext.asyncio import create_async_engine

    async def drain() -> Cost:
        metadata = MetaData()
        table = make_outbox_table(metadata)
        url = urlsplit(job.database)._replace(scheme="postgresql+asyncpg").geturl()
        engine = create_async_engine(url, pool_size=FASTSTREAM_WORKERS + 8)
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        fill(job.database, FASTSTREAM, topic=job.topic, count=job.count)
        kafka = KafkaBroker(_servers(job), acks="all", enable_idempotence=True, logger=None)
        outbox = OutboxBroker(engine, outbox_table=table, logger=None)

        @kafka.publisher(job.topic)
        @outbox.subscriber(
            "orders",
            max_workers=FASTSTREAM_WORKERS,
            fetch_batch_size=BATCH,
            min_fetch_interval=0.001,
            terminal_flush_batch_size=BATCH,
            propagate_inbound_headers=True,
        )
        async def relay(body: dict[str, Any]) -> Any:
            return KafkaResponse(body, key=body["n"].encode())

        executed = 0

        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def count(*_: object) -> None:
            nonlocal executed
            executed += 1

        await kafka.connect()
        cost = await _measured(job.count, lambda: _run_until_none_is_left(outbox, job))
        await outbox.stop()
        await kafka.stop()
        await engine.dispose()
        return replace(cost, statements=executed)

    return asyncio.run(drain())


def reliable(job: Job) -> Cost:
    """`outbox_worker --burst`: claims a batch, then publishes, waits and commits one by one."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    parts = urlsplit(job.database)
    settings.configure(
        INSTALLED_APPS=["reliable_outbox"],
        USE_TZ=True,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parts.path.strip("/"),
                "HOST": parts.hostname,
                "PORT": parts.port,
                "USER": parts.username,
                "PASSWORD": parts.password or "",
            }
        },
        LOGGING={"version": 1, "root": {"level": "ERROR"}},
        RELIABLE_OUTBOX={
            "BATCH_SIZE": 100,
            "DESTINATIONS": {
                "default": {
                    "BACKEND": "reliable_outbox.destinations.kafka.KafkaDestination",
                    "OPTIONS": {
                        "topic": "{name}",
                        "config": {
                            "bootstrap.servers": _servers(job),
                            "acks": "all",
                            "linger.ms": 0,
                        },
                    },
                }
            },
        },
    )
    django.setup()
    call_command("migrate", verbosity=0)
    fill(job.database, RELIABLE, topic=job.topic, count=job.count)
    options = {"burst": True, "notify": False, "concurrency": RELIABLE_THREADS}
    return measured(job.count, lambda: call_command("outbox_worker", **options))


def _servers(job: Job) -> str:
    return urlsplit(job.broker).netloc


async def _measured(count: int, run: Any) -> Cost:
    began, cpu_began = time.perf_counter(), time.process_time()
    executed = _count_asyncpg()
    await run()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    return Cost(count, seconds, cpu, len(executed))


def _count_asyncpg() -> list[None]:
    """Grows by one with each statement of any asyncpg connection."""
    from asyncpg.connection import Connection

    executed: list[None] = []
    for name in ("execute", "fetch", "fetchrow", "fetchval"):
        original = getattr(Connection, name)

        async def counted(self: Any, *args: Any, _original: Any = original, **kwargs: Any) -> Any:
            executed.append(None)
            return await _original(self, *args, **kwargs)

        setattr(Connection, name, counted)
    return executed


async def _until_empty(process_batch: Any) -> None:
    while await process_batch():
        pass


async def _run_until_none_is_left(outbox: Any, job: Job) -> None:
    await outbox.start()
    deadline = time.monotonic() + PATIENCE
    async with await psycopg.AsyncConnection.connect(job.database, autocommit=True) as looking:
        while time.monotonic() < deadline:
            found = await (await looking.execute("SELECT EXISTS (SELECT FROM outbox)")).fetchone()
            if found == (False,):
                return
            await asyncio.sleep(0.02)
    raise SystemExit("faststream-outbox did not end")
