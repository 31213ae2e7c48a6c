"""import-linter refuses what the contracts between rooms say."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import TIMEOUT

ROOT = Path(__file__).parents[2]
PACKAGES = ("config", "orders", "outbox", "brokers", "relay", "sagas", "saga_runtime")
TRESPASSES = {
    # A module, what it is not to import, and the contract that says so.
    "journal imports run": (
        "sagas/journal/sql.py", "sagas.run.state", "nobody calls upwards",
    ),
    "definition imports journal": (
        "sagas/definition/identity.py", "sagas.journal.sql", "nobody calls upwards",
    ),
    "inbox imports worker": (
        "sagas/inbox/sequences.py", "sagas.worker.metrics", "nobody calls upwards",
    ),
    "inbox imports sagaz": (
        "sagas/inbox/counters.py", "sagaz", "only what declares and runs a saga imports sagaz",
    ),
    "a statement imports psycopg": (
        "sagas/journal/statements.py", "psycopg", "do not speak PostgreSQL's protocol",
    ),
    "the ground floor imports a room": (
        "saga_runtime/text.py", "sagas.errors", "Data goes one way round",
    ),
    "the ground floor imports outbox": (
        "saga_runtime/waits.py", "outbox.errors", "Data goes one way round",
    ),
    "orders imports a room of sagas": (
        "orders/services.py", "sagas.journal.sql", "orders uses the public face of sagas",
    ),
    "what answers imports what serves": (
        "config/web/head.py", "config.serving.failures", "config: commands run what serves",
    ),
    "settings import what answers": (
        "config/logs.py", "config.web.head", "config: commands run what serves",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says of the project with every trespass in it."""
    copy = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package)
    shutil.copy(ROOT / "pyproject.toml", copy)
    for module, forbidden, _ in TRESPASSES.values():
        path = copy / module
        path.write_text(f"{path.read_text()}\nimport {forbidden}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=copy,
        env={**os.environ, "COLUMNS": "500"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert done.returncode == 1, done.stderr
    return done.stdout


@pytest.mark.parametrize("trespass", TRESPASSES)
def test_import_linter_refuses(broken: str, trespass: str) -> None:
    module, forbidden, contract = TRESPASSES[trespass]
    importer = module.removesuffix(".py").replace("/", ".")
    kept = [line for line in broken.splitlines() if contract in line]
    assert any("BROKEN" in line for line in kept), kept
    assert re.search(rf"{re.escape(importer)} -> {re.escape(forbidden)}\b", broken)
