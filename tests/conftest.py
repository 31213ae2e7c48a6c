import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = [  # each before those that import it: pytest rewrites its asserts while importing
    "tests.shared",
    "tests.services",
    "tests.databases",
    "tests.django_database",
    "tests.saga_registries",
    "tests.postgres_versions",
    "tests.relaying.fixtures",
]

# A slow machine is no fault of an example.
SLOW_IS_FINE = [HealthCheck.too_slow]
settings.register_profile("any machine", deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.load_profile("any machine")

# Servers and processes that the tests of a module share: one worker runs them all.
OWN_SERVERS = frozenset(
    {"connect", "logical_postgres_url", "newest_postgres_url", "own_kafka", "secured_url"}
)
# With them a test uses Django's own database for tests.
DATABASE = frozenset({"db", "transactional_db", "django_db_reset_sequences"})
# No test in these folders needs PostgreSQL or Kafka; those of tests/unit start no process either.
UNIT = "tests/unit/"
NO_SERVER = (
    UNIT,
    "tests/integration/config/",
    "tests/integration/orders/",
    "tests/integration/relay/",
    "tests/integration/saga_runtime/",
    "tests/integration/sagas/",
    "tests/integration/test_rooms.py",
)
# Most tests wait for other processes.
WORKERS_PER_CORE = 3


LONGEST_ID = 200


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long text by its length: a megabyte would be part of the test's name."""
    is_long = isinstance(val, str | bytes) and len(val) > LONGEST_ID
    return f"{argname} of {len(val)}" if is_long else None  # type: ignore[arg-type]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test by what it uses, before pytest-xdist looks for groups."""
    if own := sorted(set(getattr(item, "fixturenames", ())) & OWN_SERVERS):
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {own[0]}"))
    if uses_database(item):
        item.add_marker("test_database")
    if item.nodeid.startswith(NO_SERVER):
        item.add_marker("no_server")
    if item.nodeid.startswith(UNIT) and not commits(item):
        item.add_marker("fast")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep to the tests of the lane."""
    if os.environ.get("DB") == "postgresql":
        left_out = [item for item in items if not item.get_closest_marker("test_database")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("test_database")]


def uses_database(item: pytest.Item) -> bool:
    """Tell whether this test uses Django's own database for tests."""
    used = set(getattr(item, "fixturenames", ()))
    return item.get_closest_marker("django_db") is not None or bool(used & DATABASE)


def commits(item: pytest.Item) -> bool:
    """Tell whether this test commits, for threads or processes that look at what it has written."""
    marker = item.get_closest_marker("django_db")
    used = set(getattr(item, "fixturenames", ()))
    return "transactional_db" in used or bool(marker and marker.kwargs.get("transaction"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Say how many workers `-n auto` means; PYTEST_XDIST_AUTO_NUM_WORKERS says otherwise."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    # Fast tests wait for nobody, and each worker begins with seconds of imports and migrations.
    per_core = 1 if config.getoption("markexpr") == "fast" else WORKERS_PER_CORE
    return per_core * len(os.sched_getaffinity(0))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over the folders that have no fast test where only fast ones are asked for."""
    if config.getoption("markexpr") != "fast":
        return None
    return True if collection_path.name in {"integration", "e2e", "soak"} else None


_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep which tests were skipped."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run on PostgreSQL where nothing may be skipped, and something was."""
    strict = os.environ.get("REQUIRE_SERVICES") == "1" and os.environ.get("DB") == "postgresql"
    if strict and _skipped and not hasattr(session.config, "workerinput"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("skipped, where nothing may be:", *_skipped, sep="\n  ")  # noqa: T201
