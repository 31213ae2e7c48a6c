"""What every payment gateway promises, asked of each."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from typing import NoReturn, Protocol

import pytest
from django.db import IntegrityError
from pytest_django import Settings

from orders.errors import PaymentDeclined, PaymentUnavailable
from orders.models import SimulatedCharge
from orders.payments import PaymentGateway, gateway_from_url, simulated
from orders.payments.simulated import SimulatedGateway
from tests import stripe_server
from tests.stripe_server import Rule
from tests.unit.waiting import in_thread

pytestmark = pytest.mark.django_db(transaction=True)

AMOUNT = Decimal("99.99")


class Provider(Protocol):
    """Somebody who takes money, as a test sees and troubles them."""

    @property
    def gateway(self) -> PaymentGateway: ...
    @property
    def ledger(self) -> list[tuple[str, str]]:
        """Of each charge that happened or cannot happen any more: reference and what it is now."""

    def fail_once(self) -> None: ...
    def lose_an_answer(self) -> None:
        """The next charge or refund happens, and nobody learns of it."""


class Simulated:
    def __init__(self) -> None:
        self._chances: Iterator[float] = iter(())
        self.gateway = SimulatedGateway(fail=0.5, lose=0.5, chance=lambda: next(self._chances, 1.0))

    @property
    def ledger(self) -> list[tuple[str, str]]:
        return list(SimulatedCharge.objects.order_by("key").values_list("reference", "status"))

    def fail_once(self) -> None:
        self._chances = iter([0.0])

    def lose_an_answer(self) -> None:
        self._chances = iter([1.0, 1.0, 0.0])  # neither a failure nor a stall


class Stripe:
    def __init__(self, server: stripe_server.Server) -> None:
        self.gateway = gateway_from_url("stripe://")
        self._server = server

    @property
    def ledger(self) -> list[tuple[str, str]]:
        statuses = {"succeeded": "charged", "canceled": "closed"}
        return [
            (intent.order, "refunded" if intent.refunded else statuses[intent.status])
            for intent in self._server.intents
            if intent.status in statuses
        ]

    def fail_once(self) -> None:
        self._server.tell(Rule("*", "fail", times=1))

    def lose_an_answer(self) -> None:
        self._server.tell(*(Rule(c, "lose", times=1) for c in ("confirm", "cancel", "refund")))


@pytest.fixture(params=["simulated", "stripe"])
def provider(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Provider]:
    if request.param == "simulated":
        yield Simulated()
        return
    with stripe_server.serving() as server:
        settings.STRIPE_API_KEY = stripe_server.API_KEY
        settings.STRIPE_API_BASE = server.url
        yield Stripe(server)


def charge(
    provider: Provider, *, key: str = "K", reference: str = "ORD-1", amount: Decimal = AMOUNT
) -> str:
    return provider.gateway.charge(key=key, reference=reference, amount=amount)


def refund(provider: Provider, *, key: str = "R", reference: str = "ORD-1") -> None:
    provider.gateway.refund(key=key, charge_key="K", reference=reference, amount=AMOUNT)


def test_a_key_charges_once_and_answers_the_same(provider: Provider) -> None:
    assert charge(provider) == charge(provider) == charge(provider)
    assert provider.ledger == [("ORD-1", "charged")]


def test_other_keys_are_other_charges(provider: Provider) -> None:
    assert charge(provider) != charge(provider, key="K-2", reference="ORD-2")
    assert provider.ledger == [("ORD-1", "charged"), ("ORD-2", "charged")]


def test_charges_at_once_under_one_key_are_one(provider: Provider) -> None:
    answers: list[str] = []
    together = threading.Barrier(4)

    def insist(_: threading.Event) -> None:
        together.wait()
        while True:
            try:
                answers.append(charge(provider))
            except PaymentUnavailable:
                continue  # another is at work on this key
            return

    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(in_thread(insist))
    assert len(answers) == 4
    assert len(set(answers)) == 1
    assert provider.ledger == [("ORD-1", "charged")]


def test_the_second_of_two_at_once_may_meet_the_other_constraint_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = Simulated().gateway
    first = gateway.charge(key="K", reference="ORD-1", amount=Decimal("1.00"))

    def refuse(*_: object) -> NoReturn:
        raise IntegrityError("orders_charged_once")

    monkeypatch.setattr(simulated, "run_together", refuse)
    assert gateway.charge(key="K", reference="ORD-1", amount=Decimal("1.00")) == first
    with pytest.raises(IntegrityError):
        gateway.charge(key="another", reference="ORD-1", amount=Decimal("1.00"))


def test_too_much_is_declined_each_time(provider: Provider) -> None:
    for _ in range(2):
        with pytest.raises(PaymentDeclined, match="payment declined: "):
            charge(provider, amount=Decimal("1000.01"))
    assert provider.ledger == []


def test_a_declined_charge_can_be_undone(provider: Provider) -> None:
    with pytest.raises(PaymentDeclined):
        charge(provider, amount=Decimal("1000.01"))
    provider.gateway.refund(key="R", charge_key="K", reference="ORD-1", amount=Decimal("1000.01"))
    assert provider.ledger == [("ORD-1", "closed")]


def test_a_refund_gives_the_money_back(provider: Provider) -> None:
    charge(provider)
    refund(provider)
    assert provider.ledger == [("ORD-1", "refunded")]


def test_a_refund_closes_the_key_of_a_charge_that_happened(provider: Provider) -> None:
    charge(provider)
    refund(provider)
    with pytest.raises(PaymentDeclined, match="closed"):
        charge(provider)
    assert provider.ledger == [("ORD-1", "refunded")]


def test_a_refund_closes_the_key_of_a_charge_that_never_happened(provider: Provider) -> None:
    refund(provider)
    for _ in range(2):
        with pytest.raises(PaymentDeclined, match="closed"):
            charge(provider)
    assert provider.ledger == [("ORD-1", "closed")]


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("second_key", ["R", "R-2"])
def test_a_second_refund_changes_nothing(
    provider: Provider, *, happened: bool, second_key: str
) -> None:
    if happened:
        charge(provider)
    refund(provider)
    refund(provider, key=second_key)
    assert provider.ledger == [("ORD-1", "refunded" if happened else "closed")]


def test_a_failure_is_unknown_and_asking_again_charges_once(provider: Provider) -> None:
    provider.fail_once()
    with pytest.raises(PaymentUnavailable):
        charge(provider)
    assert provider.ledger == []
    charge(provider)
    assert provider.ledger == [("ORD-1", "charged")]


def test_after_a_lost_answer_asking_again_charges_once(provider: Provider) -> None:
    provider.lose_an_answer()
    with pytest.raises(PaymentUnavailable):
        charge(provider)
    assert provider.ledger == [("ORD-1", "charged")]
    charge(provider)
    assert provider.ledger == [("ORD-1", "charged")]


def test_a_charge_whose_answer_was_lost_is_refunded(provider: Provider) -> None:
    provider.lose_an_answer()
    with pytest.raises(PaymentUnavailable):
        charge(provider)
    provider.fail_once()
    with pytest.raises(PaymentUnavailable):
        refund(provider)
    refund(provider)
    assert provider.ledger == [("ORD-1", "refunded")]


@pytest.mark.parametrize("happened", [True, False])
def test_a_refund_whose_answer_was_lost_is_asked_for_again(
    provider: Provider, *, happened: bool
) -> None:
    if happened:
        charge(provider)
    provider.lose_an_answer()
    lost = 0
    while lost < 3:
        try:
            refund(provider)
        except PaymentUnavailable:
            lost += 1
        else:
            break
    assert lost
    assert provider.ledger == [("ORD-1", "refunded" if happened else "closed")]


def test_whatever_comes_first_a_charge_and_its_refund_leave_no_charge(provider: Provider) -> None:
    for number in range(10):
        key, reference = f"K-{number}", f"ORD-{number}"
        together = threading.Barrier(2)

        def charge_it(_: threading.Event, *, key: str = key, reference: str = reference) -> None:
            together.wait()  # noqa: B023 - joined before the next turn
            while True:
                try:
                    charge(provider, key=key, reference=reference)
                except PaymentUnavailable:
                    continue
                except PaymentDeclined:
                    pass
                return

        with in_thread(charge_it):
            together.wait()
            while True:
                try:
                    provider.gateway.refund(
                        key=f"R-{number}", charge_key=key, reference=reference, amount=AMOUNT
                    )
                except PaymentUnavailable:
                    continue
                break
        with pytest.raises(PaymentDeclined, match="closed"):
            charge(provider, key=key, reference=reference)
    assert len(provider.ledger) == 10
    assert {status for _, status in provider.ledger} <= {"refunded", "closed"}
