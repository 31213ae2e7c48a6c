"""The pages and files beside the orders: home, API documentation, health."""

import re
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from outbox.models import OutboxMessage
from tests.problems import assert_problem

pytestmark = pytest.mark.django_db


def links(html: str) -> list[str]:
    return re.findall(r'(?:href|src|url)"?\s*[=:]\s*"([^"]+)"', html)


def content(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200, path
    return b"".join(response).decode(errors="replace")


def test_the_home_page_leads_to_what_is_here(client: Client) -> None:
    found = links(content(client, "/"))

    assert set(found) == {"/orders/", "/api/docs", "/admin/", "/health/", "/health/ready/"}
    for link in found:
        assert client.get(link).status_code in (200, 302)


def test_the_documentation_needs_nothing_from_elsewhere(client: Client) -> None:
    found = links(content(client, "/api/docs"))

    assert "/api/openapi.json" in found
    assert any(link.endswith(".js") for link in found)
    assert all(link.startswith("/") and not link.startswith("//") for link in found)


def test_the_documentation_finds_its_files(client: Client) -> None:
    for link in links(content(client, "/api/docs")):
        assert content(client, link)


def test_the_schema_describes_every_route(client: Client) -> None:
    paths = client.get("/api/openapi.json").json()["paths"]

    assert {(path, method) for path, methods in paths.items() for method in methods} >= {
        ("/orders/", "get"),
        ("/orders/", "post"),
        ("/orders/{order_id}/", "get"),
        ("/orders/{order_id}/diagram/", "get"),
        ("/health/", "get"),
        ("/health/ready/", "get"),
    }


def test_health(client: Client) -> None:
    assert client.get("/health/").json() == {"status": "healthy"}


def test_ready(client: Client) -> None:
    body = client.get("/health/ready/").json()

    assert body["status"] == "ready"
    assert {check["name"] for check in body["checks"]} == {
        "database",
        "migrations",
        "writes",
        "outbox",
    }


def waiting(seconds: float) -> None:
    OutboxMessage.objects.create(
        topic="t",
        key="k",
        key_hash=1,
        type="t",
        payload=b"{}",
        created_at=timezone.now() - timedelta(seconds=seconds),
    )


@pytest.mark.parametrize(("age", "status"), [(5, 200), (15, 503)])
def test_not_ready_when_a_message_waits_too_long(
    client: Client, settings: Settings, age: float, status: int
) -> None:
    settings.OUTBOX_MAX_AGE = 10.0
    waiting(age)
    waiting(0)

    assert client.get("/health/ready/").status_code == status


def test_not_ready_says_that_the_outbox_is_old(client: Client, settings: Settings) -> None:
    settings.OUTBOX_MAX_AGE = 10.0
    settings.SAGAZ = settings.SAGAZ | {"BROKER_URL": "kafka://user:secret@broker:9092"}
    waiting(60)

    problem = assert_problem(client.get("/health/ready/"), 503)
    assert re.search(r"has waited \d+ s \(limit 10 s\)", problem["detail"])
    assert "kafka://broker:9092" in problem["detail"]
    assert "secret" not in problem["detail"]
    assert [check["name"] for check in problem["checks"] if not check["ok"]] == ["outbox"]


def test_not_ready_when_migrations_are_missing(client: Client) -> None:
    [newest] = MigrationLoader(connection).graph.leaf_nodes("orders")
    MigrationRecorder(connection).record_unapplied(*newest)

    problem = assert_problem(client.get("/health/ready/"), 503)
    assert "manage.py migrate" in problem["detail"]


@pytest.mark.parametrize("app", ["orders", "outbox", "auth"])
def test_not_ready_when_a_migration_before_the_newest_is_missing(client: Client, app: str) -> None:
    [oldest] = MigrationLoader(connection).graph.root_nodes(app)
    MigrationRecorder(connection).record_unapplied(*oldest)

    problem = assert_problem(client.get("/health/ready/"), 503)
    assert f"1 migration(s) are not applied ({app}.{oldest[1]})" in problem["detail"]


def test_ready_when_the_database_is_newer_than_the_code(client: Client) -> None:
    MigrationRecorder(connection).record_applied("orders", "9999_of_the_next_release")

    assert client.get("/health/ready/").status_code == 200


def test_not_ready_when_the_database_is_away(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise DatabaseError("server closed the connection")

    monkeypatch.setattr("config.web.health._migrations", fail)
    monkeypatch.setattr("config.web.health.connection.close", lambda: None)

    problem = assert_problem(client.get("/health/ready/"), 503)
    assert "server closed the connection" in problem["detail"]
