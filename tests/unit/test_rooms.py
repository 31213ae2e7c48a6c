"""Each room keeps to itself: the contracts of import-linter, and the one writer of the tables."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
        "sagas/journal/statements.py", "psycopg", "only journal.libpq speaks",
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

WRITING_CALLS = {
    "create", "update", "save", "delete", "bulk_create", "bulk_update", "get_or_create",
    "update_or_create", "acreate", "aupdate", "asave", "adelete", "abulk_create",
}  # fmt: skip
MODELS = {
    "Saga", "SagaStep", "SagaAttempt", "Intervention", "InboxMessage", "RefusedCommand",
}  # fmt: skip
RELATED = {"steps", "attempts", "interventions"}
WRITING_SQL = re.compile(r"\b(INSERT\s+INTO|UPDATE|DELETE\s+FROM|TRUNCATE)\s+sagas_", re.IGNORECASE)


def writes_of_saga_tables(source: str) -> Iterator[str]:
    """Find what writes a saga's table: by a model, by rows that belong to a saga, or by SQL.

    Args:
        source: the text of a Python module.

    Yields:
        The line's number and text, for people.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr=attr) as called) if attr in WRITING_CALLS:
                inside = [*ast.walk(called)]
                names = {each.id for each in inside if isinstance(each, ast.Name)}
                parts = {each.attr for each in inside if isinstance(each, ast.Attribute)}
                if "saga" in names or (names | parts) & MODELS or parts & RELATED:
                    yield f"{node.lineno}: {ast.unparse(node)[:80]}"
            case ast.Constant(value=str() as text) if WRITING_SQL.search(text):
                yield f"{node.lineno}: {text.strip()[:80]}"


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if "migrations" not in path.parts:
                yield path


def test_only_the_journal_writes_the_sagas_tables() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in modules()
        if ROOT / "sagas/journal" not in path.parents
        and (lines := [*writes_of_saga_tables(path.read_text())])
    }
    assert found == {}


def test_the_journal_does_write_them() -> None:
    """Or the test above would look for something that nobody writes any more."""
    writers = {
        path.stem
        for path in (ROOT / "sagas/journal").glob("*.py")
        if any(writes_of_saga_tables(path.read_text()))
    }
    assert {"claims", "writing", "new_sagas", "manual_changes", "statements"} <= writers


@pytest.mark.parametrize(
    "line",
    [
        "Saga.objects.filter(id=1).update(status='parked')",
        "models.Saga.objects.create(name='order')",
        "saga.save(update_fields=['status'])",
        "saga.steps.all().delete()",
        "connection.cursor().execute('UPDATE sagas_saga SET epoch = 0')",
        'f"INSERT INTO sagas_step ({columns}) VALUES (1)"',
        "InboxMessage.objects.bulk_create(rows)",
    ],
)
def test_a_trespass_is_found(line: str) -> None:
    assert [*writes_of_saga_tables(line)]


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
        timeout=100,
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
