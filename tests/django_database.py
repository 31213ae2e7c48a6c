"""What tests on Django's own database for tests have: SQLite, or PostgreSQL with `DB=postgresql`.

See `tests/on_postgresql.py`. A pytest plugin: `pytest_plugins = ["tests.django_database"]`.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.management.commands import flush
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from whitenoise.middleware import WhiteNoiseMiddleware


@pytest.fixture(autouse=True, scope="session")
def _secret_key() -> None:
    """Requests want one, and a fresh checkout has none."""
    settings.SECRET_KEY = "only for tests"


@pytest.fixture
def no_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection would keep PostgreSQL from dropping the tests' database."""
    monkeypatch.setattr(settings, "SAGA_OUTBOX", settings.SAGA_OUTBOX | {"WAKE_UP": False})


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


@pytest.fixture(autouse=True, scope="session")
def _static_files_found_once() -> Iterator[None]:
    """Each test client makes the middleware anew, which then looks at hundreds of files."""
    look, found = WhiteNoiseMiddleware.add_files_from_finders, dict[str, Any]()

    def add_files(middleware: WhiteNoiseMiddleware) -> None:
        if not found:
            look(middleware)
            found.update(middleware.files)
        middleware.files.update(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", add_files)
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the other database."""
    other = "on_sqlite" if connection.vendor == "postgresql" else "on_postgresql"
    left_out = [item for item in items if item.get_closest_marker(other)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
