"""No code changes a status in a way that the tables of the state machine do not have."""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from saga_runtime.interventions import By
from sagas.definition.hooks import Ending, SagaOutcome
from sagas.errors import CancelRefused, CancelRequested, EndRefused, LeaseLost
from sagas.journal import claims, writing
from sagas.journal.cancelling import request_cancel
from sagas.journal.entries import BeginPivot, Change, End, Entry, Fail, StepEntry, Wait
from sagas.journal.final_transaction import finish
from sagas.journal.local_step import do_locally
from sagas.journal.records import Claimed
from sagas.journal.state_machine import SAGA_TRANSITIONS, STEP_BEGINS, STEP_TRANSITIONS
from sagas.models import Saga, SagaStatus, StepKind, StepStatus
from sagas.operations import interventions
from sagas.operations.interventions import InterventionRefused
from tests.state_changes import recorded
from tests.unit.sagas.saga_running import Register, begin
from tests.unit.sagas.scripted_sagas import Part, Script, chain

PAGE = Path(__file__).parents[4] / "docs/sagas.md"
STEPS = ("fly", "stay")
BY = By("ada", "looked at it")
# What a worker, or a person, may meet; not a fault of the walk.
REFUSALS = (
    CancelRefused, CancelRequested, EndRefused, InterventionRefused, LeaseLost,
)  # fmt: skip


class Walk:
    """One saga, and everything that may happen to it in an order of chance."""

    def __init__(self, chance: random.Random, key: str) -> None:
        self._chance = chance
        self._id = begin("trip", key=key)
        self._claimed: Claimed | None = None
        self._attempts: dict[tuple[str, StepKind], int] = {}

    def step(self) -> None:
        """Let something happen to the saga: what it is, chance decides."""
        acts = [self._claim, self._write_step, self._do_locally, self._change, self._end]
        act: Callable[[], object] = self._chance.choice([*acts, self._intervene, self._intervene])
        with suppress(*REFUSALS):
            act()

    def skip_a_compensation(self, status: StepStatus) -> None:
        """Have a person leave out what undoes a step, from this status of it."""
        self._claim()
        assert self._claimed
        undoing = replace(self._entry(status), step="fly", kind=StepKind.COMPENSATION)
        writing.write([Entry(saga=self._claimed, step=undoing, changes=(Fail("no"),))])
        self._finish(Ending.PARKED)
        interventions.skip(self._id, "fly", by=BY)

    def _claim(self) -> None:
        Saga.objects.filter(id=self._id).update(next_run_at=timezone.now())
        found = claims.claim(worker="w", limit=1, lease=timedelta(0), only=self._id)
        self._claimed = found[0] if found else self._claimed

    def _write_step(self) -> None:
        status = self._chance.choice(
            [StepStatus.STARTED, StepStatus.DONE, StepStatus.FAILED, StepStatus.UNKNOWN]
        )
        if self._claimed:
            writing.write([Entry(saga=self._claimed, step=self._entry(status))])

    def _do_locally(self) -> None:
        if self._claimed:
            entry = Entry(saga=self._claimed, step=self._entry(StepStatus.DONE))
            do_locally(entry, work=dict, timeout=None)

    def _entry(self, status: StepStatus) -> StepEntry:
        step, kind = self._chance.choice(STEPS), self._chance.choice([*StepKind])
        attempt = self._attempts.get((step, kind), 0) + self._chance.randint(0, 1)
        self._attempts[step, kind] = attempt
        return StepEntry(
            step=step,
            kind=kind,
            status=status,
            attempt=attempt,
            failures=0,
            started_at=timezone.now(),
            result="" if status is StepStatus.STARTED else "{}",
        )

    def _change(self) -> None:
        changes: list[Change] = [Fail("no"), Fail("no", cancelled=True), Wait(0), BeginPivot()]
        if self._claimed:
            writing.write([Entry(saga=self._claimed, changes=(self._chance.choice(changes),))])

    def _end(self) -> None:
        if not self._claimed:
            return
        ending = self._chance.choice([*Ending])
        if ending is not Ending.PARKED and self._chance.random() < 0.5:
            writing.write([Entry(saga=self._claimed, changes=(End(ending, STEPS),))])
            return
        self._finish(ending)

    def _finish(self, ending: Ending) -> None:
        assert self._claimed
        before = Saga.objects.get(id=self._id)
        outcome = SagaOutcome(
            saga_id=self._id, name="trip", key="", ending=ending, reason="why", context={}
        )
        try:
            finish(self._claimed, outcome, steps=STEPS)
        except EndRefused:
            # Whatever a run meets, its saga can be parked for a person.
            assert ending is not Ending.PARKED, before.status
            raise

    def _intervene(self) -> None:
        step, kind = self._chance.choice(STEPS), self._chance.choice([*StepKind])
        acts: list[Callable[[], object]] = [
            lambda: request_cancel(self._id, who="ada", reason="why"),
            lambda: interventions.retry(self._id, by=BY),
            lambda: interventions.resolve(self._id, step, kind, by=BY),
            lambda: interventions.skip(self._id, step, by=BY),
            lambda: interventions.resume(self._id, by=BY),
            lambda: claims.release(worker="w"),
        ]
        self._chance.choice(acts)()


@pytest.mark.django_db(transaction=True)
def test_whatever_happens_only_these_changes_are_made(register: Register) -> None:
    """Each change of the tables is made, too: none stands there for nothing."""
    script = Script()
    register(script.saga("trip", *chain(*(Part(name) for name in STEPS))))
    chance = random.Random(7)
    with recorded() as changes:
        for n in range(200):
            walk = Walk(chance, f"K-{n}")
            for _ in range(30):
                walk.step()
        for status in (StepStatus.STARTED, StepStatus.FAILED, StepStatus.UNKNOWN):
            Walk(chance, f"K-{status}").skip_a_compensation(status)
    sagas = {(was, now) for table, was, now in changes if table == "sagas_saga" and was != now}
    steps = {(was, now) for table, was, now in changes if table == "sagas_step" and was != now}
    assert sagas == {("", SagaStatus.PENDING)} | {
        (was, now) for was, after in SAGA_TRANSITIONS.items() for now in after
    }
    assert steps == {("", status) for status in STEP_BEGINS} | {
        (was, now) for was, after in STEP_TRANSITIONS.items() for now in after
    }


def test_the_page_draws_the_table() -> None:
    drawn = PAGE.read_text()
    arrows = {(was, now) for was, after in SAGA_TRANSITIONS.items() for now in after}
    assert {line.strip() for line in drawn.splitlines() if " --> " in line} >= {
        f"{was.value} --> {now.value}" for was, now in arrows
    }
    assert set(SAGA_TRANSITIONS) == set(SagaStatus)
    assert set(STEP_TRANSITIONS) == set(StepStatus)
