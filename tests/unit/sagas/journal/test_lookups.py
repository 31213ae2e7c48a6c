"""What people and programs ask about sagas reads an index on PostgreSQL, never the table, which
only grows."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from sagaz.core.types import SagaStatus as SagazStatus

from sagas.checks import check_unfinished_sagas
from sagas.journal import claims, cleaning
from sagas.models import UNFINISHED, Saga, SagaStatus
from sagas.operations import interventions, reports, sagaz_storage
from sagas.worker import metrics

pytestmark = [pytest.mark.on_postgresql, pytest.mark.django_db(transaction=True)]

ALL = 5_000


@pytest.fixture(autouse=True)
def _grown() -> None:
    """One of each status but `completed`, and many that ended as usual."""
    others = ", ".join(f"'{status}'" for status in SagaStatus if status != "completed")
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO sagas_saga (id, name, key, version, definition_hash, input, status, paused,
                epoch, worker, next_run_at, failure, park_reason, correlation_id, traceparent,
                created_at)
            SELECT gen_random_uuid(), 'house', 'H-' || n, 1, 'h', '{{}}',
                coalesce((ARRAY[{others}])[n], 'completed'), false, 1, '', now(), '', '', '', '',
                now() - n * interval '1 second'
            FROM generate_series(1, {ALL}) n
            """  # noqa: S608 - constants
        )
        cursor.execute("ANALYZE sagas_saga")


def plans(call: Callable[[], object]) -> str:
    """How PostgreSQL carries out what the call asks about sagas."""
    with CaptureQueriesContext(connection) as asked:
        call()
    about = [
        query["sql"] for query in asked if re.search(r'(FROM|UPDATE) "?sagas_saga"?', query["sql"])
    ]
    assert about
    lines = []
    with connection.cursor() as cursor:
        for query in about:
            cursor.execute(f"EXPLAIN {query}")
            lines += [line for (line,) in cursor.fetchall()]
    return "\n".join(lines)


def by_key() -> object:
    return interventions.find_saga("H-777")


def newest() -> object:
    return reports.list_sagas(status=None, name=None, limit=50)


def old() -> object:
    return cleaning.clean_sagas(older_than=timezone.now() - timedelta(days=30))


def failed() -> object:
    return sagaz_storage._list(SagazStatus.FAILED, None, 100, 0)


def executing() -> object:
    return sagaz_storage._list(SagazStatus.EXECUTING, None, 100, 0)


def held() -> None:
    claims._held("house")
    claims.release(worker="me")


def page(query: str) -> Callable[[], object]:
    def show() -> None:
        client = Client()
        client.force_login(User.objects.create_superuser("boss"))
        assert client.get(f"/admin/sagas/saga/?{query}").status_code == 200

    return show


@pytest.mark.parametrize(
    ("call", "index"),
    [
        (by_key, "sagas_by_key"),
        (newest, "sagas_newest"),
        (old, "sagas_newest"),
        (failed, "sagas_unusual"),
        (executing, "sagas_claimable"),
        (held, "sagas_claimable"),
        (metrics._count, "sagas_claimable"),
        (metrics._count, "sagas_unusual"),
        (lambda: check_unfinished_sagas(None), "sagas_unusual"),
        (page("q=H-777"), "sagas_by_key"),
        (page("status__exact=parked"), "sagas_unusual"),
        (page("status__exact=running"), "sagas_claimable"),
    ],
)
def test_reads_an_index(call: Callable[[], object], index: str) -> None:
    found = plans(call)
    assert index in found
    assert "Seq Scan on sagas_saga" not in found, found


@pytest.mark.parametrize("status", [each for each in SagaStatus if each != SagaStatus.COMPLETED])
def test_so_does_the_list_by_status(status: str) -> None:
    found = plans(lambda: reports.list_sagas(status=status, name=None, limit=50))
    assert "sagas_unusual" in found
    assert "Seq Scan" not in found, found


def test_a_saga_on_its_usual_way_is_never_in_the_index_of_the_others() -> None:
    [condition] = [i.condition for i in Saga._meta.indexes if i.name == "sagas_unusual"]
    assert condition is not None
    usual = Saga.objects.filter(status__in=("pending", "running", "completed"))
    assert usual.count() == ALL - 5
    assert not usual.filter(condition).exists()


def test_each_unfinished_saga_is_counted_once() -> None:
    Saga.objects.filter(status="running").update(paused=True)
    assert metrics._count() == dict.fromkeys(UNFINISHED, 1)
