"""What a step may not do, or needs to be healed from: a saga within a saga, the async ORM."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection, connections
from sagaz import Saga as SagaClass
from sagaz import action
from sagaz.core.triggers import trigger

from brokers import Record
from sagas import call_in_thread, run_saga_sync
from sagas.definition.hooks import Hook
from sagas.inbox import accepting
from sagas.models import RefusedCommand, Saga
from tests.unit.sagas.saga_running import Context, Register, begin, run_to_end
from tests.unit.sagas.scripted_sagas import Part, Script
from tests.unit.waiting import TIMEOUT

pytestmark = pytest.mark.django_db(transaction=True)

REFUSED = "run_saga_sync inside a saga: "


class Child(SagaClass):
    saga_name = "child"

    @action("one")
    def one(self, ctx: Context) -> None: ...


def run_child() -> None:
    run_saga_sync(Child, {}, timeout=TIMEOUT)


async def run_in_our_thread(_: Context) -> None:
    await call_in_thread(run_child)


async def run_in_another(_: Context) -> None:
    await asyncio.to_thread(run_child)


async def run_in_djangos(_: Context) -> None:
    await sync_to_async(run_child, thread_sensitive=False)()


class TestAChildRunWithin:
    @pytest.mark.parametrize("act", [run_in_our_thread, run_in_another, run_in_djangos])
    def test_an_external_step_is_refused(
        self, register: Register, script: Script, act: Callable[[Context], Any]
    ) -> None:
        register(Child, script.saga("tour", Part("fly", external=True, max_retries=0)))
        script.acts["fly"] = act
        saga = run_to_end(begin("tour"))
        assert saga.status == "rolled_back"
        assert REFUSED in saga.failure
        assert "outbox.enqueue()" in saga.failure
        assert not Saga.objects.filter(name="child").exists()

    def test_a_local_step_is_refused(self, register: Register, script: Script) -> None:
        register(Child, script.saga("tour", Part("fly", max_retries=0)))
        script.acts["fly"] = lambda _: run_child()
        assert REFUSED in run_to_end(begin("tour")).failure

    def test_a_hook_is_refused(
        self, register: Register, script: Script, on_finish: Callable[[str, Hook], None]
    ) -> None:
        register(Child, script.saga("tour", Part("fly")))
        on_finish("tour", lambda _: run_child())
        assert REFUSED in run_to_end(begin("tour")).park_reason

    def test_a_trigger_is_refused(self, register: Register) -> None:
        class Tour(SagaClass):
            saga_name = "tour"

            @trigger(source="tour.book", idempotency_key="trip")
            def on_book(self, _: Context) -> Context:
                run_child()
                return {}

            @action("fly")
            def fly(self, ctx: Context) -> None: ...

        register(Child, Tour)
        headers = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "tour.book"}
        texts = tuple((f"ce_{name}", text.encode()) for name, text in headers.items())
        accepting.accept([Record("tours", 0, 0, b"k", b'{"trip": "T"}', texts)], consumer="test")
        assert "run_saga_sync inside a trigger" in RefusedCommand.objects.get().reason
        run_child()  # outside of it, it may


@pytest.mark.on_postgresql
def test_the_async_orm_goes_on_after_the_server_closed_its_connection(
    register: Register, script: Script
) -> None:
    register(script.saga("tour", Part("fly", external=True, max_retries=0)))
    pids: list[int] = []

    def note_pid() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pids.append(cursor.fetchone()[0])

    async def fly(_: Context) -> None:
        await Saga.objects.acount()
        await sync_to_async(note_pid)()

    script.acts["fly"] = fly
    try:
        assert run_to_end(begin("tour", key="one")).status == "completed"
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", pids)
        for key in ("two", "three"):
            saga = run_to_end(begin("tour", key=key))
            assert (saga.status, saga.failure) == ("completed", "")
        assert pids[0] != pids[1] == pids[2]
    finally:
        asyncio.run(sync_to_async(connections.close_all)())


@pytest.mark.on_postgresql
def test_a_trigger_that_asks_by_the_async_orm_goes_on_too(register: Register) -> None:
    pids: list[int] = []

    def note_pid() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pids.append(cursor.fetchone()[0])

    class Tour(SagaClass):
        saga_name = "tour"

        @trigger(source="tour.book", idempotency_key="trip")
        async def on_book(self, event: Context) -> Context:
            await sync_to_async(note_pid)()
            return {"trip": event["trip"], "sagas": await Saga.objects.acount()}

        @action("fly")
        def fly(self, ctx: Context) -> None: ...

    def accept(trip: str) -> None:
        headers = {"specversion": "1.0", "id": trip, "source": "/tests", "type": "tour.book"}
        texts = tuple((f"ce_{name}", text.encode()) for name, text in headers.items())
        value = f'{{"trip": "{trip}"}}'.encode()
        accepting.accept([Record("tours", 0, 0, b"k", value, texts)], consumer="test")

    register(Tour)
    try:
        accept("one")
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", pids)
        with pytest.raises(OperationalError):  # nothing is refused: it was our own database
            accept("two")
        accept("two")
        assert set(Saga.objects.values_list("key", flat=True)) == {"one", "two"}
        assert not RefusedCommand.objects.exists()
    finally:
        asyncio.run(sync_to_async(connections.close_all)())
