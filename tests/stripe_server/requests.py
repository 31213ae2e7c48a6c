from dataclasses import dataclass

from tests.stripe_server.answers import Refused

SMALLEST = 50
PARAMETERS: dict[str, set[str]] = {
    "create": {
        "amount",
        "currency",
        "allowed_payment_method_types[0]",
        "metadata[order]",
        "metadata[charge_key]",
    },
    "confirm": {"payment_method", "error_on_requires_action"},
    "cancel": set(),
    "retrieve": {"expand[0]"},
    "search": {"query"},
    "refund": {"payment_intent"},
}


@dataclass
class Request:
    call: str
    intent_id: str
    form: dict[str, str]
    key: str

    @classmethod
    def read(cls, method: str, path: str, form: dict[str, str], key: str) -> "Request":
        match (method, *path.strip("/").split("/")):
            case ("POST", "v1", "payment_intents"):
                return cls("create", "", form, key)
            case ("GET", "v1", "payment_intents", "search"):
                return cls("search", "", form, key)
            case ("GET", "v1", "payment_intents", intent_id):
                return cls("retrieve", intent_id, form, key)
            case ("POST", "v1", "payment_intents", intent_id, ("confirm" | "cancel") as call):
                return cls(call, intent_id, form, key)
            case ("POST", "v1", "refunds"):
                return cls("refund", form.get("payment_intent", ""), form, key)
        raise Refused(404, "invalid_request_error", f"Unrecognized request URL ({method}: {path}).")

    @property
    def signature(self) -> object:
        return self.call, self.intent_id, sorted(self.form.items())

    def validate(self) -> None:
        wrong = set(self.form) ^ PARAMETERS[self.call]
        if wrong:
            raise Refused(
                400,
                "invalid_request_error",
                f"Received unknown parameter, or lacks it: {', '.join(sorted(wrong))}",
                code="parameter_unknown",
            )
        if self.call == "create" and int(self.form["amount"]) < SMALLEST:
            raise Refused(
                400,
                "invalid_request_error",
                "Amount must be at least €0.50 eur",
                code="amount_too_small",
                param="amount",
            )
