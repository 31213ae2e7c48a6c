"""The refused commands of an earlier version are kept, and new ones beside them."""

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

BEFORE = [("sagas", "0004_find_sagas")]
AFTER = [("sagas", "0005_refused_by_content")]
PLACE = {"topic": "t", "partition": 0, "offset": 7, "headers": [], "reason": "x"}


@pytest.mark.django_db(transaction=True)
def test_there_and_back_on_a_filled_table() -> None:
    def migrated(targets: list[tuple[str, str]]) -> type:
        executor = MigrationExecutor(connection)
        executor.migrate(targets)
        found: type = executor.loader.project_state(targets).apps.get_model(
            "sagas", "RefusedCommand"
        )
        return found

    latest = [
        key for key in MigrationExecutor(connection).loader.graph.leaf_nodes() if key[0] == "sagas"
    ]
    try:
        rows = migrated(BEFORE)
        rows.objects.create(**PLACE)  # type: ignore[attr-defined]
        rows = migrated(AFTER)
        assert [row.content_hash for row in rows.objects.all()] == [""]  # type: ignore[attr-defined]
        rows.objects.create(**PLACE, content_hash="a")  # type: ignore[attr-defined]
        with connection.cursor() as cursor:  # as the version before goes on writing
            cursor.execute(
                "INSERT INTO sagas_refused_command"
                ' (topic, partition, "offset", headers, reason, received_at)'
                " VALUES ('t', 0, 8, '[]', 'x', '2026-01-01T00:00:00Z')"
            )
        assert rows.objects.count() == 3  # type: ignore[attr-defined]
        rows.objects.exclude(content_hash="").delete()  # type: ignore[attr-defined]
        assert migrated(BEFORE).objects.count() == 2  # type: ignore[attr-defined]
    finally:
        migrated(latest)
