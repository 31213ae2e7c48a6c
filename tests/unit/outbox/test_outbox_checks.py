"""Database settings that could not work are refused by name, before anything fails late."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
from django.apps import apps
from django.core.checks import CheckMessage, run_checks
from django.db import connections
from django.db.models import Model

from outbox import checks
from relay.assembly import open_store

pytestmark = pytest.mark.django_db  # from Django 6.0 on its own checks ask the database


def ids(found: list[CheckMessage]) -> set[str | None]:
    return {each.id for each in found}


def of_the_outbox() -> list[CheckMessage]:
    return [each for each in run_checks() if str(each.id).startswith("outbox.")]


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Any:
    def with_settings(**changed: Any) -> None:
        default = connections["default"]
        monkeypatch.setattr(default, "settings_dict", default.settings_dict | changed)

    return with_settings


def test_our_own_settings_pass() -> None:
    assert of_the_outbox() == []


@pytest.mark.parametrize(
    ("changed", "expected", "named"),
    [
        ({"OPTIONS": {"server_side_binding": True}}, "outbox.E002", "server_side_binding"),
        ({"AUTOCOMMIT": False}, "outbox.E003", "AUTOCOMMIT"),
    ],
)
def test_options_that_cannot_work(
    options: Any, changed: Mapping[str, Any], expected: str, named: str
) -> None:
    options(**changed)
    [found] = of_the_outbox()
    assert found.id == expected
    assert named in found.msg
    assert found.hint


def test_a_database_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(connections["default"]), "vendor", "mysql")
    assert ids(checks.check_database(None)) == {"outbox.E001"}


class Replicas:
    """As in Django's documentation: reads go to a replica, by chance."""

    def db_for_read(self, *_: Any, **__: Any) -> str:
        return random.choice(["default", "replica"])

    def db_for_write(self, *_: Any, **__: Any) -> str:
        return "default"


class ReplicasOfOthers(Replicas):
    """What the hint says."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        if model._meta.app_label in ("outbox", "sagas"):
            return "default"
        return super().db_for_read(model, **hints)


class Elsewhere:
    def db_for_write(self, model: type[Model], **_: Any) -> str | None:
        return "journal" if model._meta.app_label == "sagas" else None


class NoTables:
    def allow_migrate(self, _db: str, app_label: str, **_: Any) -> bool | None:
        return False if app_label == "outbox" else None


@pytest.mark.parametrize(
    ("router", "named"),
    [
        (Replicas, "reads from 'replica'"),
        (Elsewhere, "writes to 'journal'"),
        (NoTables, "allows no table in 'default'"),
    ],
)
def test_routers_that_tear_us_apart(router: type, named: str, settings: Any) -> None:
    settings.DATABASE_ROUTERS = [router()]
    found = of_the_outbox()
    assert ids(found) == {"outbox.E004"}
    assert named in found[0].msg
    assert "is in (" in str(found[0].hint)


class OrdersElsewhere:
    def db_for_write(self, model: type[Model], **_: Any) -> str | None:
        return "shop" if model._meta.app_label == "orders" else None


@pytest.mark.parametrize(
    ("router", "named"),
    [(ReplicasOfOthers, "reads from 'replica'"), (OrdersElsewhere, "writes to 'shop'")],
)
def test_a_router_that_tears_orders_from_the_outbox(
    router: type, named: str, settings: Any
) -> None:
    settings.DATABASE_ROUTERS = [router()]
    found = [each for each in run_checks() if str(each.id).startswith("orders.")]
    assert ids(found) == {"orders.E001"}
    assert {each.obj for each in found} == set(apps.get_app_config("orders").get_models())
    assert all(named in each.msg for each in found)


def test_a_router_that_leaves_our_tables_alone_passes(settings: Any) -> None:
    settings.DATABASE_ROUTERS = [ReplicasOfOthers()]
    assert of_the_outbox() == []


@pytest.mark.on_postgresql
@pytest.mark.parametrize(
    "pool",
    [None, True, {"max_size": 2}, {"min_size": 1, "max_size": 2}],
)
def test_a_relay_deletes_in_a_thread_of_its_own(options: Any, pool: Any) -> None:
    options(OPTIONS={"pool": pool})
    assert open_store("relay").deletes_beside_reads


@pytest.mark.on_postgresql
@pytest.mark.parametrize("most", [None, 1])
def test_with_a_single_connection_it_does_not(options: Any, most: int | None) -> None:
    options(OPTIONS={"pool": {"min_size": 1, "max_size": most}})
    assert not open_store("relay").deletes_beside_reads


def test_a_django_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.VERSION", (4, 2, 20, "final", 0))
    [found] = checks.check_database(None)
    assert (found.id, found.msg) == ("outbox.E005", "Django 4.2.20 is older than 5.2")


class TestPsycopg:
    @pytest.fixture(autouse=True)
    def _on_postgresql(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connections["default"], "vendor", "postgresql")

    def test_with_its_part_in_c(self) -> None:
        assert checks.check_database(None) == []

    def test_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("psycopg.pq.__impl__", "python")
        [found] = checks.check_database(None)
        assert (found.id, "psycopg[binary]" in str(found.hint)) == ("outbox.W001", True)
