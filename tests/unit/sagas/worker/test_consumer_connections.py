"""What `run_saga_consumer` says where its processes may want more connections than there are."""

from io import StringIO

import pytest
from django.conf import settings

from sagas.management.commands.run_saga_consumer import Command

pytestmark = [pytest.mark.django_db, pytest.mark.on_postgresql]


@pytest.mark.parametrize(
    ("processes", "says"), [(1, ""), (1000, "1000 processes open 26000 connections at most")]
)
def test_one_line_where_they_are_few(processes: int, says: str) -> None:
    assert settings.DATABASES["default"]["OPTIONS"]["pool"]["max_size"] == 25
    said = StringIO()
    Command(stdout=said)._say_where_connections_are_few(processes)
    lines = said.getvalue().splitlines()
    assert len(lines) == bool(says)
    assert says in said.getvalue()
    assert not says or "raise its max_connections, or give --processes" in lines[0]
