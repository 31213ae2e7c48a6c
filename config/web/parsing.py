"""Read request bodies: strict JSON, numbers with a fraction as Decimal."""

from decimal import Decimal, InvalidOperation
from typing import Any

from django.http import HttpRequest
from ninja.parser import Parser

from saga_runtime.problems import Problem
from saga_runtime.strict_json import UnreadableJSON, read_json

_MAX_DIGITS = 100


class StrictJSONParser(Parser):
    """Answer 400 or 415 to an unreadable body, before the body is validated."""

    def parse_body(self, request: HttpRequest) -> Any:
        """Read the body as JSON.

        Raises:
            Problem: 415 for another content type, 400 for a body that is not strict JSON.
        """
        if request.content_type != "application/json":
            raise Problem(415, "send Content-Type: application/json")
        try:
            return read_json(request.body, parse_int=_integer, parse_float=_fraction)
        except UnreadableJSON as error:
            raise Problem(400, f"the body {error}") from None


def _integer(text: str) -> int | Decimal:
    """Read an integer; a very long one becomes a Decimal, which then fails its field's check."""
    return int(text) if len(text) <= _MAX_DIGITS else Decimal(text)


def _fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of more than 18 digits
        return Decimal("Infinity")
