"""Slow and idle clients hold no thread: health answers and orders are taken beside them.

In little; tests/soak/test_slow_clients.py does it for a minute with more of them.
"""

import socket
import time
from contextlib import ExitStack
from pathlib import Path

from config.gunicorn import graceful_timeout
from tests import processes
from tests.e2e.gunicorn import running_gunicorn
from tests.e2e.service import Service
from tests.slow_clients import PATIENCE, Seen, crowd, look

SLOW, IDLE = 60, 60  # of either kind more than there are threads
SECONDS, RATE = 4, 5


def assert_served(seen: Seen) -> None:
    assert seen.failures == []
    assert seen.orders == [202] * (SECONDS * RATE)
    assert max(seen.health) < PATIENCE / 2  # they would wait for the end of the slow ones


def test_embedded(service: Service) -> None:
    with crowd(service.port, slow=SLOW, idle=IDLE):
        assert_served(look(service.port, seconds=SECONDS, rate=RATE))


def test_gunicorn(tmp_path: Path) -> None:
    for command in ("migrate", "load_sample_stock"):
        assert processes.manage(tmp_path, command).returncode == 0
    with running_gunicorn(tmp_path) as port, crowd(port, slow=SLOW, idle=IDLE):
        assert_served(look(port, seconds=SECONDS, rate=RATE))


def test_stopping_gunicorn_waits_for_none_of_them(tmp_path: Path) -> None:
    with ExitStack() as clients:
        with running_gunicorn(tmp_path) as port:
            for said in (b"", b"GET /health/ HT") * 5:
                client = clients.enter_context(socket.create_connection(("127.0.0.1", port)))
                client.sendall(said)
            began = time.monotonic()
        assert time.monotonic() - began < graceful_timeout  # which an answer may take
