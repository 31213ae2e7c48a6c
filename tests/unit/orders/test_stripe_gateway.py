"""stripe:// against the tests' own Stripe: what it sends, and what it makes of each answer."""

import sys
import threading
from collections.abc import Iterator
from decimal import Decimal

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from orders.errors import PaymentDeclined, PaymentUnavailable
from orders.payments import PaymentGateway, gateway_from_url
from tests.stripe_server import API_KEY, DECLINED_CARD, Rule, Server, serving
from tests.stripe_server.rules import Call
from tests.unit.waiting import in_thread, until

AMOUNT = Decimal("12.34")


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    with serving() as server:
        settings.STRIPE_API_KEY = API_KEY
        settings.STRIPE_API_BASE = server.url
        settings.STRIPE_TIMEOUT = 5.0
        yield server


@pytest.fixture
def gateway(server: Server) -> PaymentGateway:
    return gateway_from_url("stripe://")


def charge(gateway: PaymentGateway, *, amount: Decimal = AMOUNT) -> str:
    return gateway.charge(key="K", reference="ORD-1", amount=amount)


def refund(gateway: PaymentGateway, *, key: str = "R", amount: Decimal = AMOUNT) -> None:
    gateway.refund(key=key, charge_key="K", reference="ORD-1", amount=amount)


class TestCharging:
    def test_an_intent_is_created_and_confirmed(
        self, server: Server, gateway: PaymentGateway
    ) -> None:
        assert charge(gateway) == "pi_1"
        (intent,) = server.intents
        assert (intent.amount, intent.currency) == (1234, "eur")
        assert (intent.order, intent.key) == ("ORD-1", "K")
        assert (intent.status, intent.charged) == ("succeeded", 1234)
        assert server.effects == ["created", "charged"]
        assert server.calls == {"create": 1, "confirm": 1}

    def test_in_another_currency(self, server: Server) -> None:
        charge(gateway_from_url("stripe://?currency=USD"))
        assert server.intents[0].currency == "usd"

    @pytest.mark.parametrize("amount", ["0.01", "0.49"])
    def test_an_amount_too_small_is_declined_and_can_be_undone(
        self, gateway: PaymentGateway, amount: str
    ) -> None:
        with pytest.raises(PaymentDeclined, match="at least"):
            charge(gateway, amount=Decimal(amount))
        refund(gateway, amount=Decimal(amount))

    def test_a_declined_card(self, server: Server) -> None:
        gateway = gateway_from_url(f"stripe://?payment_method={DECLINED_CARD}")
        for _ in range(2):
            with pytest.raises(PaymentDeclined, match="Your card was declined"):
                charge(gateway)
        assert server.effects == ["created"]

    def test_a_card_declined_once_is_declined_under_that_key(
        self, server: Server, gateway: PaymentGateway
    ) -> None:
        server.tell(Rule("confirm", "refuse", times=1))
        for _ in range(2):
            with pytest.raises(PaymentDeclined):
                charge(gateway)

    @pytest.mark.parametrize("call", ["create", "confirm"])
    @pytest.mark.parametrize("status", [409, 429, 500, 502, 503])
    def test_an_error_is_unknown_and_never_tried_again_behind_our_back(
        self, server: Server, gateway: PaymentGateway, call: Call, status: int
    ) -> None:
        server.tell(Rule(call, "fail", times=1, status=status))
        with pytest.raises(PaymentUnavailable, match=f"{status}"):
            charge(gateway)
        assert server.calls[call] == 1
        charge(gateway)
        assert server.effects == ["created", "charged"]

    @pytest.mark.parametrize("call", ["create", "confirm"])
    @pytest.mark.parametrize("misdeed", ["lose", "drop"])
    def test_a_closed_connection_is_unknown(
        self, server: Server, gateway: PaymentGateway, call: Call, misdeed: str
    ) -> None:
        server.tell(Rule(call, misdeed, times=1))  # type: ignore[arg-type]
        with pytest.raises(PaymentUnavailable, match="did not answer: ConnectionError"):
            charge(gateway)
        assert server.calls[call] == 1
        charge(gateway)
        assert server.effects == ["created", "charged"]

    @pytest.mark.parametrize("call", ["create", "confirm"])
    def test_a_late_answer_is_unknown(self, server: Server, settings: Settings, call: Call) -> None:
        settings.STRIPE_TIMEOUT = 0.1
        gateway = gateway_from_url("stripe://")
        server.tell(Rule(call, "late", times=1, seconds=0.5))
        with pytest.raises(PaymentUnavailable, match="did not answer: ReadTimeout"):
            charge(gateway)
        charge(gateway)
        assert server.effects == ["created", "charged"]

    def test_a_server_that_is_not_there(self, settings: Settings) -> None:
        settings.STRIPE_API_KEY = API_KEY
        settings.STRIPE_API_BASE = "http://127.0.0.1:1"
        gateway = gateway_from_url("stripe://")
        for undone in (False, True):
            with pytest.raises(PaymentUnavailable, match="did not answer: ConnectionError"):
                refund(gateway) if undone else charge(gateway)

    def test_a_key_at_work_is_unknown(self, server: Server, settings: Settings) -> None:
        settings.STRIPE_TIMEOUT = 0.1
        gateway = gateway_from_url("stripe://")
        server.tell(Rule("confirm", "slow", times=1, seconds=0.5))
        with pytest.raises(PaymentUnavailable, match="ReadTimeout"):
            charge(gateway)
        with pytest.raises(PaymentUnavailable, match=r"409.*in-progress"):
            charge(gateway)
        until(lambda: "charged" in server.effects)
        until(lambda: charge(gateway) == "pi_1")
        assert server.effects == ["created", "charged"]

    def test_an_error_that_stripe_remembers_is_looked_behind(
        self, server: Server, gateway: PaymentGateway
    ) -> None:
        server.tell(Rule("confirm", "break", times=1))
        assert charge(gateway) == "pi_1"
        assert charge(gateway) == "pi_1"
        assert server.effects == ["created", "charged"]

    def test_a_payment_that_is_processing(self, server: Server, gateway: PaymentGateway) -> None:
        server.tell(Rule("confirm", "hold", times=1))
        with pytest.raises(PaymentUnavailable, match="still at work on pi_1"):
            charge(gateway)
        with pytest.raises(PaymentUnavailable, match="status of processing"):
            refund(gateway)
        server.stripe.control({"settle": True})
        assert charge(gateway) == "pi_1"

    def test_a_key_with_other_content(self, gateway: PaymentGateway) -> None:
        charge(gateway)
        with pytest.raises(PaymentUnavailable, match=r"PAYMENT_GATEWAY_URL.*same parameters"):
            charge(gateway, amount=Decimal("12.35"))

    def test_a_wrong_api_key_says_what_to_mend(self, server: Server, settings: Settings) -> None:
        settings.STRIPE_API_KEY = "pk_wrong"
        gateway = gateway_from_url("stripe://")
        with pytest.raises(PaymentUnavailable, match=r"STRIPE_API_KEY.*Invalid API Key") as refused:
            charge(gateway)
        assert "pk_wrong" not in str(refused.value)
        with pytest.raises(PaymentUnavailable, match="STRIPE_API_KEY"):
            refund(gateway)
        assert server.effects == []

    def test_a_request_that_stripe_does_not_understand(
        self, gateway: PaymentGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tests.stripe_server.requests.PARAMETERS", {"create": set()})
        with pytest.raises(PaymentUnavailable, match=r"refuses the request: .*unknown parameter"):
            charge(gateway)


class TestUndoing:
    def test_what_was_charged_is_refunded(self, server: Server, gateway: PaymentGateway) -> None:
        charge(gateway)
        refund(gateway)
        assert server.effects == ["created", "charged", "refunded"]

    def test_what_was_never_charged_is_cancelled(
        self, server: Server, gateway: PaymentGateway
    ) -> None:
        refund(gateway)
        assert server.effects == ["created", "cancelled"]

    @pytest.mark.parametrize("call", ["create", "cancel", "retrieve", "refund"])
    @pytest.mark.parametrize("misdeed", ["fail", "lose", "drop", "break"])
    def test_trouble_at_any_call_is_unknown_and_asking_again_refunds_once(
        self, server: Server, gateway: PaymentGateway, call: Call, misdeed: str
    ) -> None:
        charge(gateway)
        server.tell(Rule(call, misdeed, times=1))  # type: ignore[arg-type]
        if (call, misdeed) not in {("create", "break"), ("cancel", "break")}:  # no work was begun
            with pytest.raises(PaymentUnavailable):
                refund(gateway)
        refund(gateway)
        assert server.effects == ["created", "charged", "refunded"]

    def test_a_creation_whose_error_stripe_remembers(
        self, server: Server, gateway: PaymentGateway
    ) -> None:
        """Nobody can learn the intent's id by the key, so nobody can confirm it either."""
        server.tell(Rule("create", "break", times=1))
        for _ in range(2):
            with pytest.raises(PaymentUnavailable, match="500"):
                charge(gateway)
        refund(gateway)
        assert server.effects == ["created", "cancelled"]

    def test_a_confirm_that_comes_before_the_cancel(
        self, server: Server, gateway: PaymentGateway
    ) -> None:
        server.tell(Rule("cancel", "slow", times=1, seconds=0.3))
        with in_thread(lambda _: refund(gateway)):
            until(lambda: server.calls["cancel"])
            charge(gateway)
        assert server.effects == ["created", "charged", "refunded"]

    def test_a_confirm_that_comes_after_the_cancel(
        self, server: Server, gateway: PaymentGateway
    ) -> None:
        """A worker stopped just before it takes the money, and continued after the refund."""
        server.tell(Rule("confirm", "slow", times=1, seconds=0.3))
        declined: list[PaymentDeclined] = []

        def charging(_: threading.Event) -> None:
            with pytest.raises(PaymentDeclined, match="closed") as raised:
                charge(gateway)
            declined.append(raised.value)

        with in_thread(charging):
            until(lambda: server.calls["confirm"])
            refund(gateway)
        assert declined
        assert server.effects == ["created", "cancelled"]

    def test_refunds_at_once_under_other_keys_refund_once(
        self, server: Server, gateway: PaymentGateway
    ) -> None:
        charge(gateway)
        server.tell(Rule("refund", "slow", times=2, seconds=0.2))
        with in_thread(lambda _: refund(gateway)), in_thread(lambda _: refund(gateway, key="R-2")):
            pass
        assert server.calls["refund"] == 2
        assert server.effects == ["created", "charged", "refunded"]

    def test_a_refund_that_fails_at_the_bank(self, server: Server, gateway: PaymentGateway) -> None:
        charge(gateway)
        server.tell(Rule("refund", "bounce"))
        with pytest.raises(PaymentUnavailable, match="the refund of pi_1 has failed"):
            refund(gateway)

    @pytest.mark.parametrize("searches_that_fail", [0, 1])
    def test_a_charge_whose_key_stripe_has_forgotten_is_found(
        self, server: Server, gateway: PaymentGateway, searches_that_fail: int
    ) -> None:
        charge(gateway)
        server.stripe.control({"forget_keys": True})
        server.tell(Rule("search", "fail", times=searches_that_fail))
        for _ in range(searches_that_fail):
            with pytest.raises(PaymentUnavailable):
                refund(gateway)
        refund(gateway)
        assert [(i.status, i.refunded) for i in server.intents] == [
            ("succeeded", 1234),
            ("canceled", 0),
        ]

    def test_a_charge_in_the_currency_before_is_found(
        self, server: Server, gateway: PaymentGateway
    ) -> None:
        charge(gateway)
        refund(gateway_from_url("stripe://?currency=usd"))
        assert server.effects == ["created", "charged", "refunded"]

    def test_a_charge_that_the_search_does_not_know_yet_is_unknown(
        self, server: Server, gateway: PaymentGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        charge(gateway)
        nothing = {"object": "search_result", "data": [], "has_more": False}
        monkeypatch.setattr(server.stripe.payments, "search", lambda _: nothing)
        with pytest.raises(PaymentUnavailable, match="currency"):
            refund(gateway_from_url("stripe://?currency=usd"))


class TestItsSettings:
    @pytest.mark.parametrize(
        ("url", "named"),
        [
            ("stripe://?limit=1", "no option 'limit'; use currency, payment_method"),
            ("stripe://?currency=euro", "three letters"),
            ("stripe://?currency=", "three letters"),
            ("stripe://?currency=jpy", "jpy"),
            ("stripe://?currency=KWD", "kwd"),
            ("stripe://?payment_method=", "payment_method"),
            ("stripe://sk_test_secret@host", "STRIPE_API_KEY"),
            ("stripe://sk_test_secret", "STRIPE_API_KEY"),
            ("stripe:///sk_test_secret", "STRIPE_API_KEY"),
        ],
    )
    def test_a_url_that_cannot_be_used(self, settings: Settings, url: str, named: str) -> None:
        settings.STRIPE_API_KEY = API_KEY
        with pytest.raises(ImproperlyConfigured, match=f"PAYMENT_GATEWAY_URL.*{named}") as refused:
            gateway_from_url(url)
        assert "secret" not in str(refused.value)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("STRIPE_API_KEY", ""),
            ("STRIPE_API_KEY", " \n"),
            ("STRIPE_API_BASE", ""),
            ("STRIPE_API_BASE", "api.stripe.com"),
            ("STRIPE_API_BASE", "ftp://api.stripe.com"),
            ("STRIPE_TIMEOUT", 0.0),
            ("STRIPE_TIMEOUT", -1.0),
            ("STRIPE_TIMEOUT", float("nan")),
            ("STRIPE_TIMEOUT", float("inf")),
        ],
    )
    def test_a_setting_that_cannot_be_used(
        self, settings: Settings, name: str, value: object
    ) -> None:
        settings.STRIPE_API_KEY = API_KEY
        setattr(settings, name, value)
        with pytest.raises(ImproperlyConfigured, match=name):
            gateway_from_url("stripe://")

    def test_without_stripes_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "orders.payments.stripe", raising=False)
        monkeypatch.setitem(sys.modules, "stripe", None)
        with pytest.raises(ImproperlyConfigured, match="uv sync --extra stripe"):
            gateway_from_url("stripe://")

    def test_by_default_it_speaks_to_stripe(self, settings: Settings) -> None:
        assert settings.STRIPE_API_BASE == "https://api.stripe.com"
        assert settings.STRIPE_TIMEOUT == 10.0
