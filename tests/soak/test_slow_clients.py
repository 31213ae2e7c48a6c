"""100 slow and 500 idle connections for a minute, and 20 orders a second beside them."""

from pathlib import Path

import pytest

from tests import processes
from tests.e2e.conftest import service, stopped  # noqa: F401 - fixtures
from tests.e2e.gunicorn import running_gunicorn
from tests.e2e.service import Service
from tests.e2e.test_compose import Compose, compose  # noqa: F401 - a fixture
from tests.slow_clients import Seen, crowd, look
from tests.soak.scale import seconds

pytestmark = [pytest.mark.soak]

SLOW, IDLE = 100, 500
RATE = 20  # orders a second
LONG = seconds(60, least=10)


def held_out(port: int) -> Seen:
    """What the others saw; nothing was refused, and health came within a second."""
    with crowd(port, slow=SLOW, idle=IDLE):
        seen = look(port, seconds=LONG, rate=RATE)
    print(f"{len(seen.orders)} orders; health within {max(seen.health):.2f} s at most")
    assert seen.failures == []
    assert seen.orders == [202] * int(LONG * RATE)
    assert max(seen.health) < 1
    return seen


def test_embedded(service: Service) -> None:  # noqa: F811 - the fixture
    held_out(service.port)


@pytest.mark.postgres
def test_gunicorn(tmp_path: Path, migrated_database_url: str) -> None:
    env = {"DATABASE_URL": migrated_database_url}
    assert processes.manage(tmp_path, "load_sample_stock", **env).returncode == 0
    with running_gunicorn(tmp_path, **env) as port:
        held_out(port)


def test_compose(compose: Compose) -> None:  # noqa: F811 - the fixture
    compose("up", "--build", "--wait")
    held_out(compose.port)
