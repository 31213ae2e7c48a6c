"""Stripe's rules: the first answer under a key, once the work on it has begun, is given again to
the same request, errors included; another request with that key gets 400, and one that comes while
the first is at work 409. What is refused before the work begins (401, 429, 409, bad parameters)
leaves the key free.
"""

from tests.stripe_server.answers import Answer, Refused


class Keys:
    """The answers that were given under idempotency keys."""

    def __init__(self) -> None:
        self._requests: dict[str, object] = {}
        self._answers: dict[str, Answer] = {}

    def begin(self, key: str, request: object) -> Answer | None:
        """The answer that was given to this request, or None: then it is to be worked on."""
        if key not in self._requests:
            self._requests[key] = request
            return None
        if self._requests[key] != request:
            raise Refused(
                400,
                "idempotency_error",
                "Keys for idempotent requests can only be used with the same parameters they were "
                f"first used with. Try using a key other than '{key}'.",
            )
        if key not in self._answers:
            raise Refused(
                409,
                "idempotency_error",
                "There is currently another in-progress request using this key.",
                code="idempotency_key_in_use",
            )
        answer = self._answers[key]
        return Answer(answer.status, answer.body, replayed=True)

    def end(self, key: str, answer: Answer) -> None:
        self._answers[key] = answer

    def forget(self) -> None:
        """Every key that is not at work."""
        for key in list(self._answers):
            del self._answers[key], self._requests[key]
