"""The server as a process of its own, told what to do and looked at over HTTP."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import requests

from tests.stripe_server.answers import Json
from tests.stripe_server.rules import Rule

_ROOT = Path(__file__).parents[2]


class StripeProcess:
    def __init__(self, url: str) -> None:
        self.url = url

    def tell(self, *rules: Rule) -> None:
        """Misbehave like this from now on; without rules, behave."""
        body = {"rules": [asdict(rule) for rule in rules]}
        requests.post(f"{self.url}/_control", json=body, timeout=10).raise_for_status()

    def ledger(self) -> Json:
        """What really happened."""
        body: Json = requests.get(f"{self.url}/_ledger", timeout=10).json()
        return body

    def effects(self, order: str) -> list[str]:
        """What happened to the payments of an order, in the order in which it happened."""
        return [each["effect"] for each in self.ledger()["effects"] if each["order"] == order]


@contextmanager
def running() -> Iterator[StripeProcess]:
    """The server, until the block ends."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.stripe_server"], cwd=_ROOT, stdout=subprocess.PIPE, text=True
    )
    with server:
        assert server.stdout is not None
        try:
            yield StripeProcess(server.stdout.readline().strip())
        finally:
            server.kill()
