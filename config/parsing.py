"""Reads request bodies: strict JSON, numbers with a fraction as Decimal."""

import json
from decimal import Decimal
from typing import Any

from django.http import HttpRequest
from ninja.parser import Parser

from config.problems import Problem


class StrictJSONParser(Parser):
    """Answers 400, 411 or 415 to a body that cannot be read, before it is validated."""

    def parse_body(self, request: HttpRequest) -> Any:
        if request.headers.get("Transfer-Encoding"):
            raise Problem(411, "send Content-Length; chunked bodies are not read")
        if request.content_type != "application/json":
            raise Problem(415, "send Content-Type: application/json")
        try:
            return json.loads(
                request.body.decode(), parse_float=Decimal, parse_constant=_no_constant
            )
        except RecursionError:
            raise Problem(400, "the body is nested too deeply") from None
        except ValueError as error:
            raise Problem(400, f"the body is not JSON: {error}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
