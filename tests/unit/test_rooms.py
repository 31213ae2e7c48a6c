"""Each room keeps to itself: the journal alone writes the sagas' tables, and no unit test starts a
process. `tests/integration/test_rooms.py` has the contracts of import-linter."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("config", "orders", "outbox", "brokers", "relay", "sagas", "saga_runtime")


WRITING_CALLS = {
    "create", "update", "save", "delete", "bulk_create", "bulk_update", "get_or_create",
    "update_or_create", "acreate", "aupdate", "asave", "adelete", "abulk_create",
}  # fmt: skip
MODELS = {
    "Saga", "SagaStep", "SagaAttempt", "Intervention", "InboxMessage", "RefusedCommand",
}  # fmt: skip
WRITING_QUERIES = {"InsertQuery", "UpdateQuery", "DeleteQuery"}
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
            case ast.Call(func=ast.Name(id=name)) as called if name in WRITING_QUERIES:
                if {each.id for each in ast.walk(called) if isinstance(each, ast.Name)} & MODELS:
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
        "InsertQuery(Saga, on_conflict=OnConflict.IGNORE)",
    ],
)
def test_a_trespass_is_found(line: str) -> None:
    assert [*writes_of_saga_tables(line)]


STARTS_PROCESSES = re.compile(
    r"(subprocess|multiprocessing|concurrent\.futures\.ProcessPoolExecutor"
    r"|os\.(fork|system|popen|exec|spawn|posix_spawn)\w*"
    r"|saga_runtime\.supervision\.Supervisor"
    r"|sagas\.testing\.(saga_|process|workers|Workers)\w*"
    r"|tests\.(integration|e2e|relaying|stripe_server\.process)"
    r"|tests\.processes(?!\.ROOT$))"
    r"(\.|$)"
)


def starts_of_processes(source: str) -> Iterator[str]:
    """Find what starts processes, and the helpers that do.

    Args:
        source: the text of a Python module.

    Yields:
        The dotted name that is imported or used.
    """
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                names += [each.name for each in node.names]
            case ast.ImportFrom(module=str() as module):
                names += [f"{module}.{each.name}" for each in node.names]
            case ast.Attribute(value=ast.Name(id="os")):
                names.append(f"os.{node.attr}")
    yield from (name for name in names if STARTS_PROCESSES.match(name))


def test_no_unit_test_starts_a_process() -> None:
    found = {
        str(path.relative_to(ROOT)): names
        for path in (ROOT / "tests/unit").rglob("*.py")
        if (names := [*starts_of_processes(path.read_text())])
    }
    assert found == {}, "such tests belong to tests/integration/"


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess",
        "from multiprocessing import Process",
        "import multiprocessing.connection",
        "from concurrent.futures import ProcessPoolExecutor",
        "from tests import processes",
        "from tests.processes import ROOT, manage",
        "from saga_runtime.supervision import Supervisor",
        "from sagas.testing import Worker, saga_crash",
        "from sagas.testing.workers import Workers",
        "os.fork()",
    ],
)
def test_the_start_of_a_process_is_found(line: str) -> None:
    assert [*starts_of_processes(line)]


@pytest.mark.parametrize(
    "line",
    [
        "from tests.processes import ROOT",
        "from sagas.testing import deliver_commands",
        "os.environ",
        "from concurrent.futures import ThreadPoolExecutor",
    ],
)
def test_what_starts_none_is_left_alone(line: str) -> None:
    assert not [*starts_of_processes(line)]
