"""Unit tests run on SQLite, and those that use the database on PostgreSQL too: see
`tests/on_postgresql.py`."""

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.core.management.commands import flush
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client

from orders.sample_stock import load_sample_stock


@pytest.fixture(autouse=True, scope="session")
def _secret_key() -> None:
    """Requests want one, and a fresh checkout has none."""
    settings.SECRET_KEY = "only for tests"


@pytest.fixture(autouse=True)
def _no_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection would keep PostgreSQL from dropping the tests' database."""
    monkeypatch.setattr(settings, "OUTBOX_WAKE_UP", False)


@pytest.fixture
def stock(db: None) -> None:
    """The sample products."""
    load_sample_stock()


@pytest.fixture
def client() -> Client:
    """A client to which an error is an answer, as it is to one on the network."""
    return Client(raise_request_exception=False)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the other database."""
    other = "on_sqlite" if connection.vendor == "postgresql" else "on_postgresql"
    left_out = [item for item in items if item.get_closest_marker(other)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True, scope="session")
def _quick_flush() -> Iterator[None]:
    """After a test with transactions Django truncates every table and makes its content types and
    permissions anew. These stay, and what there is of the rest is deleted."""
    found: list[str] = []

    def deletes(_style: object, connection: BaseDatabaseWrapper, **_: object) -> list[str]:
        if not found:
            names = connection.introspection.django_table_names(only_existing=True)
            found.extend(set(names) - {"django_content_type", "auth_permission"})
        quoted = map(connection.ops.quote_name, found)
        return [f"DELETE FROM {name}" for name in quoted]  # noqa: S608 - names of tables

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush, "sql_flush", deletes)
        patch.setattr(flush, "emit_post_migrate_signal", lambda *_, **__: None)
        yield
