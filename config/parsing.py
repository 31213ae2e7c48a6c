"""Reads request bodies: strict JSON, numbers with a fraction as Decimal."""

import json
from decimal import Decimal, InvalidOperation
from typing import Any

from django.http import HttpRequest
from ninja.parser import Parser

from config.problems import Problem
from saga_runtime.text import cut, visible

_MAX_DIGITS = 100
_MAX_NAME = 100


class StrictJSONParser(Parser):
    """Answers 400 or 415 to a body that cannot be read, before it is validated."""

    def parse_body(self, request: HttpRequest) -> Any:
        if request.content_type != "application/json":
            raise Problem(415, "send Content-Type: application/json")
        try:
            return json.loads(
                request.body.decode(),
                parse_int=_integer,
                parse_float=_fraction,
                parse_constant=_no_constant,
                object_pairs_hook=_object,
            )
        except RecursionError:
            raise Problem(400, "the body is nested too deeply") from None
        except ValueError as error:
            raise Problem(400, f"the body is not JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Names stand once in an object: which of two values counts, each reader decides otherwise."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise Problem(400, f"the name {cut(visible(twice), _MAX_NAME)!r} stands twice in an object")
    return found


def _integer(text: str) -> int | Decimal:
    """Python refuses to read very long integers; as a Decimal it fails the check of its field."""
    return int(text) if len(text) <= _MAX_DIGITS else Decimal(text)


def _fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of more than 18 digits
        return Decimal("Infinity")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
