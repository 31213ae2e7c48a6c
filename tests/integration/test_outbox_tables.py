"""The outbox's migration on PostgreSQL, where statements of our own make one of its tables."""

from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

from outbox.models import LANES, OutboxLane
from tests.databases import own_database
from tests.integration.on_postgres import default_database

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

MADE = """
    SELECT relname FROM pg_class WHERE relname LIKE 'outbox%' AND relkind IN ('r', 'p', 'S')
    UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE 'outbox%'
    ORDER BY 1
"""
OF_SEGMENTS = {
    "outbox_current_segment",
    "outbox_message",
    *[f"outbox_message_{number}" for number in range(4)],
    "outbox_message_number",
    "outbox_segment",
}


class Elsewhere:
    """A router that lets no table of ours be in this database."""

    def allow_migrate(self, _db: str, app_label: str, **_: object) -> bool | None:
        return False if app_label == "outbox" else None


@pytest.fixture(autouse=True)
def _empty(postgres_server_url: str) -> Iterator[None]:
    with own_database(postgres_server_url) as url, default_database(url):
        yield


def made() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(MADE)
        return {name for (name,) in cursor.fetchall()}


def test_there_and_back_and_there_again() -> None:
    call_command("migrate", "outbox", verbosity=0)
    first = made()
    assert first > OF_SEGMENTS
    assert OutboxLane.objects.count() == LANES
    call_command("migrate", "outbox", "zero", verbosity=0)
    assert made() == set()
    call_command("migrate", "outbox", verbosity=0)
    assert made() == first


def test_a_router_is_heeded() -> None:
    with override_settings(DATABASE_ROUTERS=[Elsewhere()]):
        call_command("migrate", "outbox", verbosity=0)
        assert made() == set()
        call_command("migrate", "outbox", "zero", verbosity=0)
    assert made() == set()
