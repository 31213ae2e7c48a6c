"""Makes PostgreSQL the default database of the test process itself, and so of its workers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection, connections
from django.db.backends.postgresql.base import DatabaseWrapper

from config import environment
from sagas.journal import sql


@contextmanager
def default_database(
    url: str, *, idle_in_transaction: int = environment.IDLE_IN_TRANSACTION_SECONDS
) -> Iterator[None]:
    """Make Django's default database the one at this URL, within the block.

    Args:
        url: of a database on PostgreSQL.
        idle_in_transaction: seconds after which a session whose process was stopped inside a
            transaction is ended.
    """
    wrapper, before = connections["default"], connections.databases["default"]
    if isinstance(wrapper, DatabaseWrapper):  # one within another: Django keeps one pool an alias
        wrapper.close()
        wrapper.close_pool()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        config = environment.database(
            environment.Environment(),
            base_dir=Path(),
            idle_in_transaction_seconds=idle_in_transaction,
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
