"""`docker compose up` as a newcomer runs it: everything in containers, with volumes that stay."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests import seed
from tests.e2e.service import until
from tests.ports import free_port
from tests.processes import ROOT
from tests.services import do_without, docker_answers

SERVICES = {"postgres", "kafka", "web", "relay", "consumer"}


class Compose:
    """A project of its own, on a port of its own."""

    def __init__(self) -> None:
        port = free_port()
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._project = f"test-{uuid.uuid4().hex[:8]}"
        self._env = os.environ | {"WEB_PORT": str(port)}

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", "compose", "--project-name", self._project, *arguments],
            cwd=ROOT,
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def running(self) -> list[dict[str, Any]]:
        """Each running container's service, state and health."""
        return [json.loads(line) for line in self("ps", "--format", "json").splitlines()]

    def healthy(self, service: str) -> int:
        """How many of this service's containers are healthy."""
        return sum(
            each["Service"] == service and each["Health"] == "healthy" for each in self.running()
        )

    def place(self, **changes: Any) -> str:
        """The order's status in the end."""
        body = seed.order(**changes)
        headers = {"X-Correlation-ID": seed.CORRELATION_ID}
        answer = requests.post(f"{self.url}/orders/", json=body, headers=headers, timeout=60)
        assert answer.status_code == 202, answer.text
        until(lambda: self.status(body["order_id"]) not in ("pending", "processing"), timeout=20)
        return self.status(body["order_id"])

    def status(self, order_id: str) -> str:
        return str(requests.get(f"{self.url}/orders/{order_id}/", timeout=60).json()["status"])

    def kafka_headers(self, topic: str, *, count: int) -> list[str]:
        """What Kafka's own console consumer prints of the topic's first messages."""
        return self(
            *("exec", "-T", "kafka", "/opt/kafka/bin/kafka-console-consumer.sh"),
            *("--bootstrap-server", "localhost:9092", "--topic", topic, "--from-beginning"),
            *("--max-messages", str(count), "--timeout-ms", "60000"),
            *("--property", "print.headers=true"),
        ).splitlines()


@pytest.fixture
def compose() -> Iterator[Compose]:
    if not docker_answers():
        do_without("needs Docker, with its compose plugin")
    project = Compose()
    try:
        yield project
    finally:
        project("down", "--volumes", "--timeout", "20")


def test_everything_in_containers(compose: Compose) -> None:
    compose("up", "--build", "--wait")
    assert {each["Service"] for each in compose.running()} == SERVICES
    assert all(compose.healthy(service) == 1 for service in SERVICES)
    assert compose.place(order_id="ORD-001") == "fulfilled"
    assert compose.place(order_id="ORD-002", amount=1500) == "rejected"
    lines = compose.kafka_headers("orders.commands", count=2)
    [command] = [line for line in lines if "ORD-001" in line]
    for header in ("ce_specversion:1.0", "ce_type:orders.place", "ce_subject:ORD-001"):
        assert header in command
    assert f"x-correlation-id:{seed.CORRELATION_ID}" in command
    listed = json.loads(compose("exec", "-T", "web", "docker/manage", "sagas", "list", "--json"))
    assert {saga["key"] for saga in listed} == {"ORD-001", "ORD-002"}

    compose("up", "--wait", "--scale", "consumer=3")
    assert compose.healthy("consumer") == 3
    assert compose.place(order_id="ORD-003") == "fulfilled"

    compose("down", "--timeout", "20")
    assert compose.running() == []
    compose("up", "--wait")
    assert compose.status("ORD-001") == "fulfilled"
    assert compose.status("ORD-002") == "rejected"
    assert compose.place(order_id="ORD-004") == "fulfilled"
    assert compose("exec", "-T", "web", "python", "manage.py", "audit_orders").endswith("clean\n")
