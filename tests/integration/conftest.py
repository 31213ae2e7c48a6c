from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from config import environment
from tests.databases import own_database
from tests.integration.on_postgres import default_database

WITH_TRANSACTIONS = ("librdkafka",)
EMPTIED = ("orders_", "sagas_", "outbox_message")  # what the names of tables begin with


@pytest.fixture(scope="module")
def idle_in_transaction() -> int:
    """Seconds that a session may be idle in a transaction: the project's own."""
    return environment.IDLE_IN_TRANSACTION_SECONDS


@pytest.fixture(scope="module")
def migrated(
    postgres_server_url: str,
    idle_in_transaction: int,
    migrated_template: str,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[None]:
    """A database of this module's own is the default one, with all tables. The one that all other
    tests share is made before: afterwards it would be made here."""
    with (
        own_database(postgres_server_url, template=migrated_template) as url,
        django_db_blocker.unblock(),
        default_database(url, idle_in_transaction=idle_in_transaction),
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that need transactions for all brokers but these."""
    left_out = [
        item
        for item in items
        if item.get_closest_marker("transactions")
        and not any(f"[{name}" in item.name for name in WITH_TRANSACTIONS)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
