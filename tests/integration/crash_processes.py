"""The other processes that die: one that answers a request, a relay, a consumer. Each is the real
thing, in a process of its own, and is killed by SIGKILL where it is told."""

import os
import re
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.backends.signals import connection_created
from django.test import Client

from brokers.kafka.timing import KafkaTiming
from relay.management.commands import run_outbox_relay
from relay.timing import Timing
from saga_runtime import project_settings
from sagas.crash_points import Point, observe
from sagas.testing.process import forking, job
from sagas.testing.worker import Job, set_up

ANSWERED = 0
TIMEOUT = 150.0
DELETES = re.compile(r'DELETE\s+FROM\s+"?outbox_message\b', re.IGNORECASE)
NO_LANES = "{}"  # as the first parameter of that statement


def start(target: Callable[..., None], *arguments: Any, **changed: Any) -> BaseProcess:
    """A process of the project, with these settings changed, on the test's database."""
    process = forking.Process(target=target, args=(job(settings=changed), *arguments), daemon=True)
    process.start()
    return process


def assert_killed(process: BaseProcess) -> None:
    process.join(TIMEOUT)
    assert process.exitcode == -signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def post_order(job: Job, body: dict[str, Any], when: str) -> None:
    """Answer a request, and die at the commit: `before` or `after` it."""
    set_up(job)
    connection.ensure_connection()
    commit = connection._commit  # type: ignore[attr-defined]

    def dying_commit() -> None:
        if when == "after":
            commit()
        die()

    connection._commit = dying_commit  # type: ignore[attr-defined]
    Client().post("/orders/", body, content_type="application/json", SERVER_NAME="localhost")


class _RelayWithShortLeases(run_outbox_relay.Command):
    timing = Timing(lease=1.0)


def relay(job: Job) -> None:
    """Publish, and die where the first row would be deleted. Its lanes are soon free."""
    set_up(job)
    connection_created.connect(_die_at_deletes, weak=False)
    call_command(_RelayWithShortLeases())


def _die_at_deletes(connection: Any, **_: Any) -> None:
    def watch(execute: Callable[..., Any], sql: str, params: Any, *rest: Any) -> Any:
        # At start a relay deletes nothing, to see that it may: there are no lanes in that.
        if DELETES.search(sql) and params[0] != NO_LANES:
            die()
        return execute(sql, params, *rest)

    connection.execute_wrappers.append(watch)


def drain(job: Job) -> None:
    """Publish all there is."""
    set_up(job)
    call_command("run_outbox_relay", drain=True)


def consume(job: Job, point: Point, number: signal.Signals) -> None:
    """Accept commands and run sagas; send itself this signal at this point."""
    set_up(job)
    observe(lambda reached, _: os.kill(os.getpid(), number) if reached is point else None)
    call_command("run_saga_consumer", concurrency=4)


def broker_setting(url: str) -> dict[str, Any]:
    timing = KafkaTiming(session=6.0)  # the least that brokers allow
    return {
        "SAGAZ": settings.SAGAZ | {"BROKER_URL": url},
        "BROKER_OPTIONS": project_settings.broker_options() | {"timing": timing},
        "SAGA_LEASE": 1.0,
    }
