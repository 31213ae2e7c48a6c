"""A pytest plugin."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.relaying.stage import Stage


@pytest.fixture
def stage(tmp_path: Path, migrated_database_url: str, kafka_broker_url: str) -> Iterator[Stage]:
    """PostgreSQL with all tables and Kafka with a topic, both of this test's own."""
    stage = Stage(tmp_path, database_url=migrated_database_url, broker_url=kafka_broker_url)
    stage.set_up()
    yield stage
    stage.clean_up()
