from dataclasses import dataclass

from tests.stripe_server.answers import Json, Refused

DECLINED_CARD = "pm_card_chargeDeclined"
LIMIT = 100_000


@dataclass
class Intent:
    id: str
    order: str
    key: str
    amount: int
    currency: str
    status: str = "requires_payment_method"
    charged: int = 0
    refunded: int = 0

    def as_json(self, *, expanded: bool = False) -> Json:
        charge: Json = {
            "id": f"ch_{self.id}",
            "object": "charge",
            "amount": self.amount,
            "amount_refunded": self.refunded,
            "refunded": self.refunded == self.amount,
        }
        return {
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "currency": self.currency,
            "status": self.status,
            "metadata": {"order": self.order, "charge_key": self.key},
            "latest_charge": (charge if expanded else charge["id"]) if self.charged else None,
            "livemode": False,
        }

    def unexpected(self, verb: str) -> Refused:
        return Refused(
            400,
            "invalid_request_error",
            f"You cannot {verb} this PaymentIntent because it has a status of {self.status}.",
            code="payment_intent_unexpected_state",
            payment_intent=self.as_json(),
        )


class Payments:
    """What Stripe keeps: intents, and every effect in the order in which they happened."""

    def __init__(self) -> None:
        self.intents: dict[str, Intent] = {}
        self.effects: list[Json] = []

    def create(self, form: dict[str, str]) -> Json:
        number = len(self.intents) + 1
        intent = Intent(
            f"pi_{number}",
            form["metadata[order]"],
            form["metadata[charge_key]"],
            int(form["amount"]),
            form["currency"],
        )
        self.intents[intent.id] = intent
        return self._had("created", intent)

    def confirm(self, intent: Intent, *, card: str, do: str | None) -> Json:
        if not intent.status.startswith("requires_"):
            raise intent.unexpected("confirm")
        if do == "refuse" or card == DECLINED_CARD or intent.amount > LIMIT:
            raise Refused(
                402,
                "card_error",
                "Your card was declined.",
                code="card_declined",
                decline_code="generic_decline",
                payment_intent=intent.as_json(),
            )
        if do == "hold":
            intent.status = "processing"
            return self._had("held", intent)
        return self._take(intent)

    def settle(self) -> None:
        for intent in self.intents.values():
            if intent.status == "processing":
                self._take(intent)

    def cancel(self, intent: Intent) -> Json:
        if not intent.status.startswith("requires_"):
            raise intent.unexpected("cancel")
        intent.status = "canceled"
        return self._had("cancelled", intent)

    def refund(self, intent: Intent, *, do: str | None = None) -> Json:
        if intent.refunded:
            raise Refused(
                400,
                "invalid_request_error",
                f"Charge ch_{intent.id} has already been refunded.",
                code="charge_already_refunded",
            )
        if intent.status != "succeeded":
            raise intent.unexpected("refund")
        if do != "bounce":
            intent.refunded = intent.amount
            self._had("refunded", intent)
        return {
            "id": f"re_{intent.id}",
            "object": "refund",
            "amount": intent.amount,
            "payment_intent": intent.id,
            "status": "failed" if do == "bounce" else "succeeded",
        }

    def search(self, query: str) -> Json:
        key = query.removeprefix("metadata['charge_key']:'").removesuffix("'")
        found = [i.as_json() for i in self.intents.values() if i.key == key]
        return {
            "object": "search_result",
            "url": "/v1/payment_intents/search",
            "has_more": False,
            "next_page": None,
            "data": found,
        }

    def _take(self, intent: Intent) -> Json:
        intent.status = "succeeded"
        intent.charged += intent.amount
        return self._had("charged", intent)

    def _had(self, effect: str, intent: Intent) -> Json:
        self.effects.append(
            {"effect": effect, "intent": intent.id, "order": intent.order, "amount": intent.amount}
        )
        return intent.as_json()
