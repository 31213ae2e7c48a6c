"""How many processes `run_saga_consumer` runs, and how it would start them."""

from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from sagas.management.commands import run_saga_consumer
from sagas.management.commands.run_saga_consumer import Command

pytestmark = pytest.mark.django_db


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command as it is typed, on a machine with eight cores."""
    monkeypatch.setattr(run_saga_consumer, "usable_cores", lambda: 8)
    command = Command()
    command._command_line = ["run_saga_consumer", "--metrics-port", "9102", "--pythonpath", "p"]
    return command


@pytest.mark.on_postgresql
def test_by_default_one_for_each_core(typed: Command) -> None:
    assert typed._count(None) == 8
    assert typed._count(1) == 1
    assert typed._count(3) == 3


@pytest.mark.on_postgresql
def test_one_of_several_starts_none(typed: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERVISED", "1")
    assert typed._count(None) == typed._count(4) == 1


@pytest.mark.on_sqlite
def test_on_sqlite_there_is_one(typed: Command) -> None:
    assert typed._count(None) == typed._count(1) == 1
    with pytest.raises(CommandError, match="SQLite writes for one process at a time"):
        typed._count(2)


@pytest.mark.on_postgresql
def test_a_program_that_calls_the_command_is_its_process() -> None:
    assert Command()._count(None) == Command()._count(1) == 1
    with pytest.raises(CommandError, match=r"call_command\(\) runs the consumer in the process"):
        call_command("run_saga_consumer", processes=2)


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_number_that_is_none(count: str) -> None:
    with pytest.raises(CommandError, match="argument --processes"):
        call_command("run_saga_consumer", f"--processes={count}")


def test_each_runs_the_command_with_its_arguments_alone(typed: Command, tmp_path: Path) -> None:
    first, second = typed._parts(2, tmp_path, counters=True)
    assert (first.name, second.name) == ("consumer-1", "consumer-2")
    for part in (first, second):
        again = part.command[part.command.index("run_saga_consumer") :]
        assert [*again[:5]] == typed._command_line
        options = vars(
            Command().create_parser("manage.py", "run_saga_consumer").parse_args(again[1:])
        )
        assert (options["processes"], options["metrics_port"]) == (1, 0)
        assert options["pythonpath"] == "p"
        assert options["alive_file"] == tmp_path / f"{part.name}.alive"
        assert part.environment == {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    assert not typed._parts(1, tmp_path, counters=False)[0].environment
