"""The tests' own Stripe as a process."""

import subprocess
import sys
from decimal import Decimal

import pytest
import requests
from pytest_django import Settings

from orders.errors import PaymentUnavailable
from orders.payments import PaymentGateway, gateway_from_url
from tests.processes import ROOT
from tests.stripe_server import API_KEY

AMOUNT = Decimal("12.34")


def charge(gateway: PaymentGateway, *, amount: Decimal = AMOUNT) -> str:
    return gateway.charge(key="K", reference="ORD-1", amount=amount)


def test_the_server_as_a_process(settings: Settings) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stripe_server"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            settings.STRIPE_API_KEY, settings.STRIPE_API_BASE = API_KEY, url
            rules = [{"call": "confirm", "do": "lose", "times": 1}]
            response = requests.post(f"{url}/_control", json={"rules": rules}, timeout=5)
            assert response.status_code == 200
            gateway = gateway_from_url("stripe://")
            with pytest.raises(PaymentUnavailable):
                charge(gateway)
            charge(gateway)
            ledger = requests.get(f"{url}/_ledger", timeout=5).json()
            assert [effect["effect"] for effect in ledger["effects"]] == ["created", "charged"]
            assert ledger["intents"][0]["charged"] == 1234
            wrong = requests.post(f"{url}/_control", json={"rules": [{"do": "evil"}]}, timeout=5)
            assert wrong.status_code == 400
        finally:
            process.terminate()
