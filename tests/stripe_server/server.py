"""HTTP around it."""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.stripe_server.answers import Answer, Refused
from tests.stripe_server.payments import Intent
from tests.stripe_server.requests import Request
from tests.stripe_server.rules import Rule
from tests.stripe_server.stripe import Stripe


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stripe: Stripe

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/_ledger":
            self._send(Answer(200, self.stripe.ledger()))
        else:
            self._serve("GET", parts.path, parts.query)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path == "/_control":
            try:
                self.stripe.control(json.loads(body))
            except (ValueError, TypeError) as error:
                self._send(Answer(400, {"error": str(error)}))
            else:
                self._send(Answer(200, {}))
        else:
            self._serve("POST", self.path, body)

    def _serve(self, method: str, path: str, form: str) -> None:
        try:
            answer = self.stripe.answer(self._request(method, path, form))
        except Refused as refused:
            answer = refused.answer
        if answer is None:
            self.close_connection = True
        else:
            self._send(answer)

    def _request(self, method: str, path: str, form: str) -> Request:
        if not self.headers.get("Authorization", "").startswith("Bearer sk_test_"):
            raise Refused(401, "invalid_request_error", "Invalid API Key provided: sk_******")
        key = self.headers.get("Idempotency-Key", "") if method == "POST" else ""
        return Request.read(method, path, dict(parse_qsl(form, keep_blank_values=True)), key)

    def _send(self, answer: Answer) -> None:
        body = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Request-Id", f"req_{time.monotonic_ns()}")
        if answer.replayed:
            self.send_header("Idempotent-Replayed", "true")
        try:
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client has not waited
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the ledger tells."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, port: int = 0) -> None:
        self.stripe = Stripe()
        super().__init__(("127.0.0.1", port), type("Bound", (Handler,), {"stripe": self.stripe}))

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that has not waited
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def tell(self, *rules: Rule) -> None:
        """Misbehave like this from now on; without rules, behave."""
        self.stripe.rules = list(rules)

    @property
    def intents(self) -> list[Intent]:
        return list(self.stripe.payments.intents.values())

    @property
    def calls(self) -> dict[str, int]:
        return self.stripe.calls

    @property
    def effects(self) -> Sequence[str]:
        return [effect["effect"] for effect in self.stripe.payments.effects]


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    """The server in a thread, until the block ends."""
    with Server(port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
