import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from tests.stripe_server.answers import Answer, Json, Refused
from tests.stripe_server.idempotency import Keys
from tests.stripe_server.payments import Payments
from tests.stripe_server.requests import Request
from tests.stripe_server.rules import Rule


@dataclass
class Stripe:
    """Answers requests; `None` is a connection closed without an answer."""

    payments: Payments = field(default_factory=Payments)
    keys: Keys = field(default_factory=Keys)
    rules: list[Rule] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    chance: Callable[[], float] = random.random
    lock: threading.RLock = field(default_factory=threading.RLock)

    def answer(self, request: Request) -> Answer | None:
        with self.lock:
            self.calls[request.call] += 1
            rule = next((r for r in self.rules if r.applies(request.call, self.chance)), None)
        do = rule.do if rule else None
        if rule and do == "fail":
            return Refused(rule.status, "api_error", "Something went wrong.").answer
        if do == "drop":
            return None
        answer = self._idempotent(request, rule)
        if rule and do == "late":
            time.sleep(rule.seconds)
        return None if do == "lose" else answer

    def _idempotent(self, request: Request, rule: Rule | None) -> Answer:
        if not request.key:
            return self._worked(request, rule)
        with self.lock:
            self._admit(request)
            known = self.keys.begin(request.key, request.signature)
        if known:
            return known
        if rule and rule.do == "slow":
            time.sleep(rule.seconds)
        with self.lock:
            answer = self._worked(request, rule)
            self.keys.end(request.key, answer)
        return answer

    def _admit(self, request: Request) -> None:
        request.validate()
        if request.intent_id and request.intent_id not in self.payments.intents:
            raise Refused(
                404,
                "invalid_request_error",
                f"No such payment_intent: '{request.intent_id}'",
                code="resource_missing",
            )

    def _worked(self, request: Request, rule: Rule | None) -> Answer:
        do = rule.do if rule else None
        try:
            with self.lock:
                self._admit(request)
                body = self._work(request, do)
        except Refused as refused:
            return refused.answer
        if do == "break":
            return Refused(500, "api_error", "An unknown error occurred.").answer
        return Answer(200, body)

    def _work(self, request: Request, do: str | None) -> Json:
        match request.call:
            case "create":
                return self.payments.create(request.form)
            case "search":
                return self.payments.search(request.form["query"])
        intent = self.payments.intents[request.intent_id]
        match request.call:
            case "confirm":
                return self.payments.confirm(intent, card=request.form["payment_method"], do=do)
            case "cancel":
                return self.payments.cancel(intent)
            case "refund":
                return self.payments.refund(intent, do=do)
        return intent.as_json(expanded=True)

    def control(self, instructions: Json) -> None:
        with self.lock:
            if "rules" in instructions:
                self.rules = [Rule(**rule) for rule in instructions["rules"]]
            if instructions.get("settle"):
                self.payments.settle()
            if instructions.get("forget_keys"):
                self.keys.forget()

    def ledger(self) -> Json:
        with self.lock:
            intents = [asdict(intent) for intent in self.payments.intents.values()]
            effects = list(self.payments.effects)
            return {"intents": intents, "effects": effects, "calls": dict(self.calls)}
