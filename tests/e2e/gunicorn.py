"""gunicorn alone, as docs/how-to/serve-the-web.md starts it, on a migrated database."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests import processes
from tests.e2e.service import SLOWEST, START_TIMEOUT, STOP_TIMEOUT, until
from tests.ports import free_port


@contextmanager
def running_gunicorn(directory: Path, **env: str) -> Iterator[int]:
    """Serve until the block ends; gives the port, once it answers. A clean stop is asserted."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn"]
    process = subprocess.Popen(
        [*command, "--bind", f"127.0.0.1:{port}"],
        env=processes.environment(directory) | {"SECRET_KEY": "only for tests"} | env,
        cwd=processes.ROOT,
    )
    try:
        until(lambda: _answers(port), timeout=START_TIMEOUT)
        yield port
        process.terminate()
        assert process.wait(STOP_TIMEOUT * SLOWEST) == 0
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health/", timeout=30).ok
    except requests.RequestException:
        return False
