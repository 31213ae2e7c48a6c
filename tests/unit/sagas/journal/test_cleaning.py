"""`manage.py sagas clean`: what is old goes, batch by batch, and nothing that is still needed."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone

from sagas.models import ENDED, InboxMessage, Saga, SagaAttempt, SagaStatus, SagaStep

pytestmark = pytest.mark.django_db(transaction=True)

NOW = timezone.now()
LONG_AGO = NOW - timedelta(days=31)


@pytest.fixture
def clean(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        call_command("sagas", "clean", "--older-than", "30d", "--batch", "2", *arguments)
        return capsys.readouterr().out

    return run


def accepted(message_id: str, at: datetime) -> None:
    InboxMessage.objects.create(
        consumer="sagas", source="/tests", message_id=message_id, received_at=at
    )


def ended(key: str, *, began: datetime, at: datetime, status: str = "completed") -> Saga:
    saga = Saga.objects.create(
        id=uuid4(), name="house", key=key, status=status, created_at=began, finished_at=at
    )
    saga.steps.create(step="dig", kind="F", status="done", key="k")
    saga.attempts.create(step="dig", kind="F", attempt=1, status="done", started_at=began)
    return saga


def test_all_old_rows_go_and_the_young_one_stays(clean: Callable[..., str]) -> None:
    for number in range(3):
        accepted(f"old-{number}", LONG_AGO)
        ended(f"old-{number}", began=LONG_AGO, at=LONG_AGO)
    accepted("young", NOW)
    ended("young", began=NOW, at=NOW)

    assert clean() == "deleted: 3 ended saga(s), 3 row(s) of the inbox\n"

    assert InboxMessage.objects.get().message_id == "young"
    young = Saga.objects.get()
    assert young.key == "young"
    assert SagaStep.objects.get().saga == SagaAttempt.objects.get().saga == young


def test_rows_of_different_moments(clean: Callable[..., str]) -> None:
    for number in range(7):
        moment = LONG_AGO - timedelta(hours=number // 3)
        accepted(f"{number}", moment)
        ended(f"{number}", began=moment, at=LONG_AGO, status=ENDED[number % 2])

    assert json.loads(clean("--json")) == {"sagas": 7, "inbox": 7}
    assert json.loads(clean("--json")) == {"sagas": 0, "inbox": 0}


@pytest.mark.parametrize("status", sorted(set(SagaStatus) - set(ENDED)))
def test_what_has_not_ended_stays_however_old(clean: Callable[..., str], status: str) -> None:
    ended("old", began=LONG_AGO, at=LONG_AGO, status=status)
    for number in range(3):
        ended(f"gone-{number}", began=LONG_AGO, at=LONG_AGO)

    clean()

    assert Saga.objects.get().status == status


def test_what_began_long_ago_and_ended_lately_stays(clean: Callable[..., str]) -> None:
    ended("slow", began=LONG_AGO, at=NOW)

    clean()

    assert Saga.objects.exists()


def test_batches_that_are_done_stay_done(clean: Callable[..., str]) -> None:
    for number in range(5):
        accepted(f"old-{number}", LONG_AGO)
    deletes = 0

    def second_fails(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal deletes
        deletes += sql.startswith("DELETE")
        if deletes == 2:
            raise OperationalError("canceling statement due to statement timeout")
        return execute(sql, *rest)

    with connection.execute_wrapper(second_fails), pytest.raises(OperationalError):
        clean()
    assert InboxMessage.objects.count() == 3

    clean()
    assert not InboxMessage.objects.exists()


@pytest.mark.parametrize("age", ["", "30", "0d", "12h", "-1d", "1.5d", "999999d"])
def test_an_age_that_is_none(age: str) -> None:
    with pytest.raises(CommandError, match="give whole days, 1 or more, such as 30d"):
        call_command("sagas", "clean", f"--older-than={age}")


def test_the_help_says_how_long_to_keep_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call_command("sagas", "clean", "--help")
    assert "retention.ms" in capsys.readouterr().out
