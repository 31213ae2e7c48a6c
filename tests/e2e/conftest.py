from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.full_service import FullService
from tests.e2e.pgbouncer import PgBouncer, running_pgbouncer
from tests.e2e.project.parts import Parts
from tests.e2e.service import Service


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Service]:
    """A service not yet started."""
    service = Service(tmp_path)
    yield service
    service.clean_up()


@pytest.fixture
def service(stopped: Service) -> Service:
    """A running service."""
    stopped.start()
    return stopped


@pytest.fixture
def full_service(
    tmp_path: Path, migrated_database_url: str, kafka_broker_url: str
) -> Iterator[FullService]:
    """A service over PostgreSQL and Kafka, not yet started."""
    service = FullService(tmp_path, database_url=migrated_database_url, broker_url=kafka_broker_url)
    yield service
    service.clean_up()
    service.delete_topics()


@pytest.fixture
def parts(tmp_path: Path, migrated_database_url: str, kafka_broker_url: str) -> Iterator[Parts]:
    """Parts of a service over PostgreSQL and Kafka, not yet started."""
    service = Parts(tmp_path, database_url=migrated_database_url, broker_url=kafka_broker_url)
    yield service
    service.clean_up()
    service.delete_topics()


@pytest.fixture
def pgbouncer(postgres_server_url: str) -> Iterator[PgBouncer]:
    with running_pgbouncer(postgres_server_url) as running:
        yield running
