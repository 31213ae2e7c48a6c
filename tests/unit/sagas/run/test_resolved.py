"""A step that a person has resolved counts as done, also where the saga is undone after."""

from collections.abc import Callable
from uuid import UUID

import pytest

from saga_runtime.interventions import By
from sagas import NeedsAttention, StepRejected
from sagas.models import Saga, StepKind
from sagas.operations import interventions
from tests.unit.sagas.saga_running import Register, begin, journal_of, run_to_end
from tests.unit.sagas.scripted_sagas import Part, Script, chain, failing, raising

# What a step does here, it does once: the next attempt finds another.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("one_by_one")]

ANN = By("ann", "by hand")
NO = StepRejected("no")
LOOK = NeedsAttention("look")


@pytest.fixture(params=[False, True], ids=["local", "external"])
def shop(request: pytest.FixtureRequest, register: Register, script: Script) -> str:
    names = ("reserve", "check", "weigh", "charge", "ship")
    parts = [Part(name, external=request.param, pivot=name == "ship") for name in names]
    register(script.saga("shop", *chain(*parts)))
    return "shop"


def parked_at_check(script: Script, shop: str, **acts: Callable[..., object]) -> UUID:
    """`charge`, which stands two steps behind it, is then resolved."""
    script.acts["check"] = failing(LOOK)
    script.acts |= acts
    saga = run_to_end(begin(shop)).id
    assert Saga.objects.get(id=saga).status == "parked"
    interventions.resolve(saga, "charge", StepKind.FORWARD, by=ANN)
    return saga


UNDONE = ["uncharge", "unreserve"]


def undone(saga: UUID, script: Script) -> list[str]:
    assert Saga.objects.get(id=saga).status == "rolled_back", Saga.objects.get(id=saga).park_reason
    assert journal_of(saga)["charge:C"] == ("done", 1)
    return [call for call in script.calls if call.startswith("un") and call != "uncheck"]


def test_a_step_before_it_that_fails_undoes_it_too_and_in_order(script: Script, shop: str) -> None:
    saga = parked_at_check(script, shop)
    script.acts["check"] = raising(NO)
    run_to_end(saga)
    assert undone(saga, script) == UNDONE


def test_so_does_a_cancel(script: Script, shop: str) -> None:
    saga = parked_at_check(script, shop)
    interventions.cancel(saga, by=ANN)
    run_to_end(saga)
    assert undone(saga, script) == UNDONE


def test_so_does_a_failure_that_another_worker_takes_up(script: Script, shop: str) -> None:
    """The saga is decided, and parks because a compensation fails; then it goes on."""
    saga = parked_at_check(script, shop)
    script.acts |= {"check": raising(NO), "uncharge": raising(ConnectionError("away"))}
    assert run_to_end(saga).park_reason.startswith("undoing charge keeps failing")
    del script.acts["uncharge"]
    interventions.retry(saga, by=ANN)
    assert run_to_end(saga).status == "rolled_back"
    assert journal_of(saga)["charge:C"][0] == "done"
    assert journal_of(saga)["reserve:C"][0] == "done"


def test_one_before_the_failure_is_undone_as_if_it_had_run(script: Script, shop: str) -> None:
    script.acts |= {"check": failing(LOOK), "weigh": raising(NO)}
    saga = run_to_end(begin(shop)).id
    interventions.resolve(saga, "check", StepKind.FORWARD, by=ANN)
    assert run_to_end(saga).status == "rolled_back"
    assert journal_of(saga)["check:C"] == ("done", 1)
    assert script.calls == ["reserve", "check", "weigh", "uncheck", "unreserve"]


def test_where_nothing_fails_it_is_not_run(script: Script, shop: str) -> None:
    saga = parked_at_check(script, shop)
    assert run_to_end(saga).status == "completed"
    assert script.calls == ["reserve", "check", "check", "weigh", "ship"]
