"""Speaks the calls of Stripe's API that the gateway uses, keeps Stripe's rules of idempotency, and
misbehaves as it is told. Run by a test, or as a process of its own:

    python -m tests.stripe_server --port 8086

`GET /_ledger` shows what really happened. `POST /_control` takes JSON with any of
`{"rules": […]}` (see `Rule`; they replace those before), `{"settle": true}` (payments that are
processing succeed) and `{"forget_keys": true}` (as Stripe does after a day). The API key is any
that begins with sk_test_. The card pm_card_chargeDeclined, and more than 1000.00, are declined.
"""

from tests.stripe_server.payments import DECLINED_CARD, Intent
from tests.stripe_server.rules import Rule
from tests.stripe_server.server import Server, serving

API_KEY = "sk_test_local"

__all__ = ["API_KEY", "DECLINED_CARD", "Intent", "Rule", "Server", "serving"]
