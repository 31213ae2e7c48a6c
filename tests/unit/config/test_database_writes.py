"""Readiness knows whether an order would be taken; a refused write is one line of the log."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from config.web import database_writes, health
from orders.models import Order
from tests.problems import assert_problem
from tests.seed import ORDER

pytestmark = pytest.mark.django_db(transaction=True)

READY = "/health/ready/"


@pytest.fixture(autouse=True)
def _as_at_start(stock: None) -> Iterator[None]:
    health._was_ready = True
    database_writes.note_taken()
    yield
    database_writes.note_taken()
    connection.close()  # with what a test has set on it


def place(client: Client, **headers: str) -> Any:
    return client.post("/orders/", json.dumps(ORDER), "application/json", headers=headers)


def failed(client: Client) -> dict[str, Any]:
    """The check that is not ok."""
    problem = assert_problem(client.get(READY), 503)
    [check] = [check for check in problem["checks"] if not check["ok"]]
    assert check["detail"] in problem["detail"]
    return dict(check)


def run(sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone() if cursor.description else None


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What our own handler writes."""
    [console] = [h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler]
    monkeypatch.setattr(console, "stream", written := io.StringIO())
    return written


def test_it_is_ready_where_writes_are_taken(client: Client) -> None:
    checks = {check["name"]: check["ok"] for check in client.get(READY).json()["checks"]}
    assert checks["writes"] is True


@pytest.mark.on_postgresql
@pytest.mark.parametrize("setting", ["default_transaction_read_only = on"])
def test_a_read_only_server_is_not_ready(client: Client, setting: str) -> None:
    run(f"SET {setting}")

    assert "read-only" in failed(client)["detail"]
    assert "takes no writes" in assert_problem(place(client), 503)["detail"]
    run("RESET default_transaction_read_only")
    database_writes.note_taken()
    assert client.get(READY).status_code == 200


@pytest.mark.on_postgresql
def test_a_role_that_may_not_insert_is_not_ready(client: Client) -> None:
    run("CREATE ROLE looks_only")
    try:
        run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO looks_only")
        run("SET ROLE looks_only")
        assert "may not insert" in failed(client)["detail"]
    finally:
        run("RESET ROLE")
        run("DROP OWNED BY looks_only")
        run("DROP ROLE looks_only")


@pytest.mark.on_sqlite
def test_a_read_only_file_is_not_ready(client: Client) -> None:
    run("PRAGMA query_only = on")

    assert "read-only" in failed(client)["detail"]
    assert "takes no writes" in assert_problem(place(client), 503)["detail"]
    run("PRAGMA query_only = off")
    assert place(client).status_code == 202
    assert client.get(READY).status_code == 200


@pytest.mark.on_sqlite
def test_a_full_disk_is_not_ready_until_a_write_is_taken(client: Client) -> None:
    run("CREATE TABLE filler (text TEXT)")
    pages = run("PRAGMA page_count")[0]
    run(f"PRAGMA max_page_count = {pages}")
    with suppress(OperationalError):  # which says that the disk is full
        for _ in range(pages):  # as many may be free, and each row takes one or more
            run("INSERT INTO filler VALUES (hex(randomblob(4000)))")
    refused = 0
    for number in range(200):
        body = json.dumps(ORDER | {"order_id": f"ORD-{number}"})
        refused = client.post("/orders/", body, "application/json").status_code
        if refused == 503:
            break
    assert refused == 503
    check = failed(client)
    assert (check["name"], "disk is full" in check["detail"]) == ("writes", True)

    run("PRAGMA max_page_count = 1073741823")
    run("DROP TABLE filler")
    assert place(client).status_code == 202
    assert client.get(READY).status_code == 200


def test_a_refused_write_is_forgotten_in_time(client: Client) -> None:
    """Without traffic nobody would find out that the disk has room again."""
    database_writes.note_refused("disk full", remembered_seconds=0.0)

    assert client.get(READY).status_code == 200


def test_an_answer_of_503_is_one_line_with_its_correlation_id(
    client: Client, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    def away(**_: object) -> None:
        raise OperationalError("gone\n\x1b[31m")

    monkeypatch.setattr("orders.services.enqueue", away)

    assert_problem(place(client, **{"X-Correlation-ID": "it-is-this-one"}), 503)
    [line] = log.getvalue().splitlines()
    assert "[it-is-this-one] the database does not answer: gone \\x1b[31m" in line
    assert not Order.objects.exists()


def test_an_error_of_ours_is_one_line_with_its_correlation_id(
    client: Client, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("orders.services.enqueue", fail)

    assert_problem(place(client, **{"X-Correlation-ID": "it-is-this-one"}), 500)
    said = [line for line in log.getvalue().splitlines() if " ERROR " in line]
    assert len(said) == 1
    assert "[it-is-this-one]" in said[0]


def test_readiness_is_told_when_it_changes(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="config.web.health")
    database_writes.note_refused("disk full")
    for _ in range(3):
        assert client.get(READY).status_code == 503
    database_writes.note_taken()
    for _ in range(3):
        assert client.get(READY).status_code == 200

    lines = [record.getMessage() for record in caplog.records if record.name == "config.web.health"]
    assert lines == [
        "not ready: the database takes no writes: the last write was refused: disk full",
        "ready again",
    ]
