"""Databases of a test's own on PostgreSQL: empty, or with all tables.

Migrating takes seconds, and copying what was migrated tenths of one: so that is done once per run.

A pytest plugin: `pytest_plugins = ["tests.databases", "tests.services"]`.
"""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests import processes
from tests.services import running_postgres, shared_server
from tests.shared import Things


@pytest.fixture
def postgres_database_url(postgres_server_url: str) -> Iterator[str]:
    """The URL of an empty database of this test's own."""
    with own_database(postgres_server_url) as url:
        yield url


@pytest.fixture
def migrated_database_url(postgres_server_url: str, migrated_template: str) -> Iterator[str]:
    """The URL of a database of this test's own, with all tables and the sample products."""
    with own_database(postgres_server_url, template=migrated_template) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(request: pytest.FixtureRequest) -> str:
    """The name of a database to copy: as `manage.py up` leaves it before the first order."""
    return shared_server(request.config, "template", running_template)


@contextmanager
def running_template(shared: Things) -> Iterator[str]:
    """Give the name of the run's migrated database."""
    server_url = shared.get("postgres", running_postgres)
    with (
        own_database(server_url) as url,
        tempfile.TemporaryDirectory(prefix="template-") as directory,
    ):
        for command in ("migrate", "load_sample_stock"):
            done = processes.manage(Path(directory), command, DATABASE_URL=url)
            assert done.returncode == 0, done.stderr
        yield urlsplit(url).path.lstrip("/")


@contextmanager
def own_database(server_url: str, *, template: str = "template1") -> Iterator[str]:
    """The URL of a new database, until the block ends.

    Args:
        server_url: any database of the server, as a superuser.
        template: the database of which it is a copy; nobody may be connected to that.
    """
    name = sql.Identifier(database := f"test_{uuid.uuid4().hex}")
    copied = sql.Identifier(template)
    _execute(server_url, sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, copied))
    try:
        yield urlsplit(server_url)._replace(path=f"/{database}").geturl()
    finally:
        _execute(server_url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _execute(url: str, statement: sql.Composed) -> None:
    """On a connection of its own: the server may be started again during a test."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)
