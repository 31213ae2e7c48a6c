"""Read JSON of foreign origin; JSON with two possible readings is refused."""

import json
from collections.abc import Callable
from typing import Any

from saga_runtime.nesting import DEEPEST, is_too_deep
from saga_runtime.text import cut, visible

_LONGEST_NAME = 100
"""Characters of a name in an error."""


class UnreadableJSON(ValueError):  # noqa: N818 - says what the text is
    """Raised where JSON cannot be read in one way only.

    The error's text continues a sentence, as in `the body {error}`.
    """


def read_json(
    text: bytes | str,
    *,
    parse_int: Callable[[str], Any] | None = None,
    parse_float: Callable[[str], Any] | None = None,
) -> Any:
    """Read one JSON value.

    Args:
        text: bytes are read as UTF-8.
        parse_int: makes a number out of digits without a fraction; None means `int`.
        parse_float: makes a number out of digits with a fraction or exponent; None means `float`.

    Raises:
        UnreadableJSON: the text is no JSON, is nested more than `DEEPEST` levels deep, or has an
            object with the same name twice: readers differ about which value counts.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(
            text,
            parse_int=parse_int,
            parse_float=parse_float,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except UnreadableJSON:
        raise
    except UnicodeDecodeError as error:
        raise UnreadableJSON(f"is not JSON in UTF-8: {error}") from None
    except RecursionError:
        raise UnreadableJSON(_TOO_DEEP) from None
    except ValueError as error:
        raise UnreadableJSON(f"is not JSON: {error}") from None
    if is_too_deep(value, text=text):
        raise UnreadableJSON(_TOO_DEEP)
    return value


_ONLY_TEXTS = frozenset({str})
_CONTAINERS = (dict, list, tuple)


def name_twice(value: Any) -> str | None:
    """Find a name that would stand twice in an object of the value's JSON.

    The keys `1` and `"1"` are two in Python and one in JSON.

    Args:
        value: of types known to JSON, not nested too deeply.

    Returns:
        The first such name; None where each name of each object differs.
    """
    level: list[Any] = [value] if isinstance(value, _CONTAINERS) else []
    while level:
        each = level.pop()
        if isinstance(each, dict):
            if not _ONLY_TEXTS.issuperset(map(type, each)):
                names = [key if isinstance(key, str) else json.dumps(key) for key in each]
                if len(set(names)) < len(names):
                    return next(name for name in names if names.count(name) > 1)
            each = each.values()
        level += [inner for inner in each if isinstance(inner, _CONTAINERS)]
    return None


_TOO_DEEP = f"is nested too deeply: more than {DEEPEST} levels"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        shown = cut(visible(twice), _LONGEST_NAME)
        raise UnreadableJSON(f"has the name {shown!r} twice in an object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
