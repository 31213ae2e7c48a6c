"""A server stops and comes back: orders go on by themselves, and no process is started again."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from testcontainers.community.postgres import PostgresContainer

from tests import seed
from tests.e2e.full_service import FullService
from tests.e2e.service import until
from tests.ports import free_port
from tests.problems import assert_problem
from tests.services import Server, do_without, docker_answers, kafka_container

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture
def _docker() -> None:
    if not docker_answers():
        do_without("needs Docker, to stop a server and start it again")


@pytest.mark.usefixtures("_docker")
class TestKafka:
    @pytest.fixture
    def kafka_server_url(self, _docker: None) -> Iterator[str]:
        """A Kafka of this test's own, for `full_service`."""
        with kafka_container(os.environ.get("KAFKA_IMAGE", "apache/kafka:4.1.0")) as url:
            yield url

    def test_orders_wait_until_it_is_back(
        self, full_service: FullService, kafka_server_url: str
    ) -> None:
        kafka = Server(kafka_server_url)
        full_service.start(OUTBOX_MAX_AGE="2")
        parts = full_service.parts()
        assert full_service.post(seed.order(order_id="BEFORE")).ok
        until(lambda: len(full_service.ended_orders()), timeout=30)
        assert full_service.get("/health/ready/").status_code == 200

        kafka.stop()
        for number in range(10):
            order = seed.order(order_id=f"MEANWHILE-{number}", amount=10)
            assert full_service.post(order).status_code == 202
        until(lambda: not full_service.get("/health/ready/").ok, timeout=10)
        readiness = full_service.get("/health/ready/")
        assert readiness.status_code == 503
        assert f"does the broker {kafka_server_url}" in readiness.json()["detail"]
        assert full_service.get("/health/").ok
        until(lambda: has_logged_outage(full_service, "relay"), timeout=20)
        until(lambda: has_logged_outage(full_service, "consumer"), timeout=20)
        assert full_service.ended_orders() == {"BEFORE"}

        kafka.start()
        until(lambda: len(full_service.ended_orders()), reaches=11, timeout=60)
        assert full_service.statuses() == {"fulfilled": 11}
        until(lambda: full_service.get("/health/ready/").ok, timeout=10)
        assert full_service.post(seed.order(order_id="AFTER")).ok
        until(lambda: full_service.statuses() == {"fulfilled": 12}, timeout=30)
        assert full_service.parts() == parts
        assert "starting it again" not in full_service.output
        full_service.assert_nothing_was_done_twice()
        full_service.assert_audit_is_clean()


@pytest.mark.usefixtures("_docker")
class TestPostgreSQL:
    @pytest.fixture
    def postgres_server_url(self, _docker: None) -> Iterator[str]:
        """A PostgreSQL of this test's own, for `full_service`."""
        container = PostgresContainer(os.environ.get("POSTGRES_IMAGE", "postgres:17"))
        with container.with_bind_ports(5432, free_port()):
            yield str(container.get_connection_url(driver=None))

    @pytest.fixture
    def migrated_database_url(self, postgres_database_url: str) -> str:
        """An empty database, which the service migrates: the run's to copy is on another server."""
        return postgres_database_url

    @pytest.mark.parametrize("way", ["stop", pytest.param("kill", marks=pytest.mark.soak)])
    def test_every_process_goes_on_by_itself(
        self, full_service: FullService, postgres_server_url: str, way: str
    ) -> None:
        server = Server(postgres_server_url)
        # Payments take a while, so that many sagas are under way when it stops.
        full_service.start(PAYMENT_GATEWAY_URL="simulated://?delay=0.2")
        parts = full_service.parts()
        with full_service.placing("--count", "60", "--rate", "10", "--retry-for", "300"):
            until(lambda: len(full_service.ended_orders()), reaches=10, timeout=30)
            getattr(server, way)()
            with ThreadPoolExecutor() as pool:
                placed = pool.submit(full_service.post, seed.ORDER)
                looked = pool.submit(full_service.get, "/orders/ORD-001/")
                ready = pool.submit(full_service.get, "/health/ready/")
            assert_problem(placed.result(), 503)
            assert placed.result().headers["Retry-After"]
            assert_problem(looked.result(), 503)
            assert ready.result().status_code == 503
            assert "the database does not answer" in ready.result().json()["detail"]
            server.start()
        assert full_service.statuses() == {"fulfilled": 60}
        until(lambda: full_service.post(seed.ORDER).ok, timeout=30)
        until(lambda: full_service.statuses() == {"fulfilled": 61}, timeout=30)
        assert full_service.parts() == parts
        assert "starting it again" not in full_service.output
        full_service.assert_nothing_was_done_twice()
        full_service.assert_audit_is_clean()

    @pytest.mark.soak
    def test_it_goes_on_soon_after_a_long_outage(
        self, full_service: FullService, postgres_server_url: str
    ) -> None:
        server = Server(postgres_server_url)
        full_service.start()
        parts = full_service.parts()
        server.stop()
        away_until = time.monotonic() + 90
        until(lambda: time.monotonic() > away_until or not is_away(full_service), timeout=120)
        assert is_away(full_service)
        server.start()
        until(lambda: not is_away(full_service), timeout=10)
        until(
            lambda: full_service.post(seed.ORDER, Prefer="wait=30").json()["status"] == "fulfilled",
            timeout=20,
        )
        assert full_service.parts() == parts


def has_logged_outage(service: FullService, part: str) -> bool:
    return any(
        line.startswith(part) and "does not answer, trying on" in line
        for line in service.output.splitlines()
    )


def is_away(service: FullService) -> bool:
    return service.get("/health/ready/").status_code == 503
