"""What `manage.py check`, and `check --deploy`, say about sagas."""

from datetime import timedelta
from typing import Any

import pytest
from django.core import checks
from django.db import OperationalError
from sagaz import Saga as SagaClass
from sagaz import action

from sagas.definition import registry
from sagas.journal import claims
from sagas.models import Saga, SagaStatus
from tests.unit.sagas import journal_entries as entries
from tests.unit.sagas.saga_running import Context, Register, begin


class Boat(SagaClass):
    saga_name = "boat"

    @action("load")
    def load(self, ctx: Context) -> None: ...

    @action("sail", depends_on=["load"])
    def sail(self, ctx: Context) -> None: ...


class ChangedBoat(SagaClass):
    saga_name = "boat"

    @action("load")
    def load(self, ctx: Context) -> None: ...

    @action("row", depends_on=["load"])
    def row(self, ctx: Context) -> None: ...


@pytest.fixture(autouse=True)
def _boats(register: Register) -> None:
    register(Boat)


def found(*, deploy: bool = True, **options: Any) -> list[checks.CheckMessage]:
    return checks.run_checks(tags=["sagas"], include_deployment_checks=deploy, **options)


def begun(key: str) -> None:
    saga = begin("boat", key=key)
    (claimed,) = claims.claim(worker="w", limit=1, lease=timedelta(0), only=saga)
    entries.done(claimed, "load", "F", attempt=1, result={})


@pytest.mark.django_db(transaction=True)
class TestUnfinishedSagas:
    def test_whose_class_is_here_are_fine(self) -> None:
        begun("B-1")
        begin("boat", key="B-2")
        assert found() == []

    @pytest.mark.parametrize("status", SagaStatus.values)
    def test_of_an_unknown_version(self, status: str) -> None:
        for key in ("B-1", "B-2"):
            begin("boat", key=key)
        Saga.objects.update(version=7, status=status)
        messages = found()
        if status in ("completed", "rolled_back"):
            assert messages == []
            return
        (error,) = messages
        assert (error.id, error.is_serious()) == ("sagas.E001", True)
        for part in ("2 sagas", "'boat'", "version 7", "'B-1'"):
            assert part in error.msg
        assert "`version = 7`" in str(error.hint)

    def test_of_an_unknown_name(self) -> None:
        begin("boat")
        Saga.objects.update(name="submarine")
        (error,) = found()
        assert error.id == "sagas.E001"
        assert "1 saga has" in error.msg
        assert "'submarine'" in error.msg

    def test_with_other_steps_than_those_they_began_with(self, register: Register) -> None:
        begun("B-1")
        begin("boat", key="B-2")  # takes the new steps
        redeploy(ChangedBoat, register=register)
        (error,) = found()
        assert (error.id, error.is_serious()) == ("sagas.E002", True)
        for part in ("1 saga has", "'boat'", "version 1", "'B-1'"):
            assert part in error.msg
        assert "ChangedBoat the version 2" in str(error.hint)

    def test_with_other_steps_that_have_ended(self, register: Register) -> None:
        begun("B-1")
        Saga.objects.update(status="rolled_back")
        redeploy(ChangedBoat, register=register)
        assert found() == []

    def test_are_looked_for_before_a_deploy_alone(self) -> None:
        begin("boat")
        Saga.objects.update(version=7)
        assert found(deploy=False) == []

    def test_are_not_looked_for_where_other_apps_are_checked(self) -> None:
        from django.apps import apps

        begin("boat")
        Saga.objects.update(version=7)
        assert found(app_configs=[apps.get_app_config("orders")]) == []
        assert len(found(app_configs=[apps.get_app_config("sagas")])) == 1

    def test_of_a_database_that_is_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def away(*_: Any) -> Any:
            raise OperationalError("the server\nis away")

        monkeypatch.setattr(Saga.objects, "filter", away)
        monkeypatch.setattr(Saga.objects, "all", away)
        (warning,) = found()
        assert (warning.id, warning.is_serious()) == ("sagas.W001", False)
        assert "the server is away" in warning.msg


def redeploy(saga_class: type[SagaClass], *, register: Register) -> None:
    registry.current().types.clear()
    register(saga_class)
