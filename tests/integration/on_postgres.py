"""Makes PostgreSQL the default database of the test process itself, and so of its workers.

Its settings are the project's own, but for one: a session whose process was stopped inside a
transaction is ended sooner.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from django.db import connection, connections
from django.db.backends.postgresql.base import DatabaseWrapper
from pytest_django.plugin import DjangoDbBlocker

from config import environment
from sagas.journal import sql
from tests.databases import own_database

IDLE_IN_TRANSACTION_SECONDS = 2
EMPTIED = ("orders_", "sagas_", "outbox_message")


@pytest.fixture(scope="module")
def migrated(
    postgres_server_url: str,
    migrated_template: str,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[None]:
    """A database of this module's own is the default one, with all tables. The one that all other
    tests share is made before: afterwards it would be made here."""
    with (
        own_database(postgres_server_url, template=migrated_template) as url,
        django_db_blocker.unblock(),
        default_database(url),
    ):
        yield


@pytest.fixture
def postgres(migrated: None) -> None:
    """The same, with no orders in it."""
    known = connection.introspection.django_table_names(only_existing=True)
    tables = [name for name in known if name.startswith(EMPTIED)]
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(tables)} CASCADE")


@pytest.fixture
def other(postgres: None) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Another client of the same database."""
    params = {
        name: value
        for name, value in connection.get_connection_params().items()
        if name in ("host", "port", "user", "password", "dbname")
    }
    with psycopg.connect(**params, application_name="a dump") as other:
        yield other


@contextmanager
def default_database(url: str) -> Iterator[None]:
    """Within the block, Django's default database is at this URL."""
    wrapper, before = connections["default"], connections.databases["default"]
    if isinstance(wrapper, DatabaseWrapper):  # one within another: Django keeps one pool an alias
        wrapper.close()
        wrapper.close_pool()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        config = environment.database(
            environment.Environment(),
            base_dir=Path(),
            idle_in_transaction_seconds=IDLE_IN_TRANSACTION_SECONDS,
        )
    connections.configure_settings({"default": config})
    connections.databases["default"] = config
    del connections["default"]
    sql.is_postgresql.cache_clear()
    try:
        yield
    finally:
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]
        connections.databases["default"] = before
        connections["default"] = wrapper
        sql.is_postgresql.cache_clear()
