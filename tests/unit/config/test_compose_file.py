"""compose.yaml passes every setting on that makes sense in a container."""

import re
from typing import Any

import pytest
import yaml

from tests.processes import ROOT

# Fixed there, since the containers' own parts depend on them: servers, address, journal. One broker
# holds no more than one replica; and nobody debugs in a container that is exposed.
LEFT_OUT = {
    "BIND",
    "DEBUG",
    "KAFKA_REPLICATION_FACTOR",
    "SAGAZ_STORAGE_URL",
    "TEST_DATABASE_URL",
    "TEST_BROKER_URL",
    "REQUIRE_SERVICES",
}
COMPOSE = (ROOT / "compose.yaml").read_text()


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
    return found


def documented() -> set[str]:
    return set(re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs/settings.md").read_text(), re.M))


def test_every_setting_is_passed_on(services: dict[str, dict[str, Any]]) -> None:
    assert {"DATABASE_URL", "STRIPE_API_KEY", "WEB_PORT"} <= documented()
    assert documented() >= LEFT_OUT
    passed = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE)) | set(services["web"]["environment"])
    assert documented() - passed == LEFT_OUT


@pytest.mark.parametrize("role", ["web", "relay", "consumer", "migrate"])
def test_every_role_has_the_same(services: dict[str, dict[str, Any]], role: str) -> None:
    assert services[role]["environment"].items() >= services["web"]["environment"].items()


def test_logs_are_rotated(services: dict[str, dict[str, Any]]) -> None:
    assert {service["logging"]["driver"] for service in services.values()} == {"local"}
