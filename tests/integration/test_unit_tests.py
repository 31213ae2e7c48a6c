"""The unit tests of what touches the database, once more on PostgreSQL."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.processes import ROOT

FILES = [
    path.relative_to(ROOT)
    for pattern in (
        "test_saga_*",
        "test_executor",
        "test_in*",
        "test_group*",
        "relay/test_*",
    )
    for path in sorted((ROOT / "tests/unit").rglob(f"{pattern}.py"))
] + [
    next((ROOT / "tests/unit").rglob(f"test_{name}.py")).relative_to(ROOT)
    for name in (
        "outbox",
        "rows_with_message",
        "outbox_checks",
        "keys_of_a_transaction",
        "metrics",
        "parked_messages",
        "cancel_orders",
        "services",
        "orders_api",
        "bad_admin_addresses",
        "waiting_requests",
        "database_writes",
        "forged_commands",
        "operations_page",
    )
]


@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_they_pass_on_postgresql_too(tmp_path: Path, postgres_database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, FILES)],
        env=processes.environment(tmp_path) | {"DATABASE_URL": postgres_database_url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " skipped" not in done.stdout
