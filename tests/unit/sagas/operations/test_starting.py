"""Sagas that are started with rows of an app, and without a message."""

from uuid import UUID

import pytest
from django.db import transaction
from sagaz import Saga as SagaClass

import sagas
from saga_runtime.correlation import Correlation, correlated
from sagas.errors import SagaDefinitionError, UnstorableValue
from sagas.models import Saga
from tests.unit.sagas.saga_running import Register, is_ended, working
from tests.unit.sagas.scripted_sagas import Part, Script, chain
from tests.unit.waiting import until


class Unregistered(SagaClass):
    saga_name = "unregistered"


pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tour(register: Register, script: Script) -> type:
    found: type = script.saga("tour", *chain(Part("fly"), Part("stay", external=True)))
    register(found)
    return found


def test_it_begins_with_the_commit_and_a_worker_runs_it(tour: type, script: Script) -> None:
    seen: list[object] = []
    script.acts["fly"] = lambda context: seen.append(context["to"])
    with working():
        with transaction.atomic(), correlated(Correlation("C-1")):
            saga = sagas.start(tour, {"to": "Rome"}, key="T-1")
            assert isinstance(saga, UUID)
            assert saga == sagas.saga_id("tour", "T-1")
            assert not seen
        until(lambda: is_ended(saga))
    row = Saga.objects.get()
    assert (row.status, row.key, row.correlation_id) == ("completed", "T-1", "C-1")
    assert (seen, script.calls) == (["Rome"], ["fly", "stay"])


def test_none_of_a_transaction_that_is_rolled_back(tour: type) -> None:
    with transaction.atomic():
        sagas.start(tour, {})
        transaction.set_rollback(True)
    assert not Saga.objects.exists()


def test_each_key_once_and_without_one_each_time(tour: type) -> None:
    first, second = (sagas.start(tour, {"n": n}, key="T-1") for n in (1, 2))
    assert first == second
    assert '"n": 1' in Saga.objects.get().input.replace('":1', '": 1')
    assert sagas.start(tour, {}) != sagas.start(tour, {})
    assert Saga.objects.count() == 3


def test_what_cannot_be_started(tour: type) -> None:
    with pytest.raises(ValueError, match="must be a text of 1 to 255 characters"):
        sagas.start(tour, {}, key="")
    with pytest.raises(UnstorableValue):
        sagas.start(tour, {"it": object()})
    with pytest.raises(SagaDefinitionError):
        sagas.start(Unregistered, {})
    assert not Saga.objects.exists()
