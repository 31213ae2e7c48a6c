"""What a saga's log lines name: the thing that failed, why a saga is parked, and what to do."""

import logging

import pytest

from sagas import StepRejected
from sagas.models import Saga
from tests.unit.sagas.saga_running import Register, begin, run_to_end
from tests.unit.sagas.scripted_sagas import Part, Script, chain, failing, raising
from tests.unit.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def script(register: Register) -> Script:
    script = Script()
    parts = chain(Part("fly", external=True, undo_retries=1), Part("stay"), Part("eat", pivot=True))
    register(script.saga("tour", *parts))
    return script


def errors(caplog: pytest.LogCaptureFixture, *, level: int = logging.ERROR) -> list[str]:
    """What our loggers have said; asyncio complains of tasks that tests before have left behind."""
    ours = (record for record in caplog.records if record.name.startswith("sagas."))
    return [record.getMessage() for record in ours if record.levelno == level]


def test_a_failed_step_and_a_failed_compensation(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script.acts["fly"] = failing(ConnectionError("away"))
    script.acts["stay"] = raising(StepRejected("full"))
    script.acts["unfly"] = failing(ConnectionError("closed"))
    assert run_to_end(begin("tour")).status == "rolled_back"
    assert [line for line in errors(caplog, level=logging.WARNING) if "trying again" in line] == [
        "tour K-1: fly failed (1 of 3), trying again: ConnectionError: away",
        "tour K-1: undoing fly failed (1 of 2), trying again: ConnectionError: closed",
    ]
    assert errors(caplog) == []


@pytest.mark.parametrize(
    ("acts", "reason"),
    [
        (
            {"stay": raising(StepRejected("full")), "unfly": raising(ConnectionError("closed"))},
            "undoing fly keeps failing: ConnectionError: closed",
        ),
        (
            {"eat": raising(ConnectionError("hot\n\x1b[31m"))},
            r"eat failed past the point of no return: ConnectionError: hot\n\x1b[31m",
        ),
    ],
)
def test_a_parked_saga_is_an_error_with_its_reason_and_the_command(
    script: Script, caplog: pytest.LogCaptureFixture, acts: dict[str, object], reason: str
) -> None:
    script.acts |= acts  # type: ignore[arg-type]
    saga = begin("tour")
    assert run_to_end(saga).status == "parked"
    line_of_parking = (
        f"tour K-1 is parked, a person must look: {reason}; see manage.py sagas show {saga}"
    )
    until(lambda: line_of_parking in errors(caplog))
    assert len([line for line in errors(caplog) if "is parked" in line]) == 1


def test_one_that_cannot_be_run_too(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    saga = begin("tour")
    Saga.objects.update(version=7)
    assert run_to_end(saga).park_reason
    assert script.calls == []
    [line] = errors(caplog)
    assert "no saga named tour with version 7 is registered here" in line
    assert f"manage.py sagas show {saga}" in line
