"""Encode values for the journal, with their types: a replay sees the very result of a step.

JSON holds most values; the rest become an object with a single key for the type:
`{"$decimal": "9.99"}`. A user's dict whose single key begins with `$` is wrapped as `{"$dict": …}`.
"""

import base64
import json
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, NoReturn
from uuid import UUID

from saga_runtime.nesting import DEEPEST, is_too_deep
from saga_runtime.text import describe_error, shown
from sagas.errors import UnreadableValue, UnstorableValue
from sagas.journal.moments import check_moment, decode_moment, encode_moment

_Writer = Callable[[Any], Any]
_Reader = Callable[[Any], Any]

_TICK = timedelta(microseconds=1)
_TOO_DEEP = f"the value is nested too deeply for the journal: more than {DEEPEST} levels"

_SCALARS: list[tuple[type, str, _Writer, _Reader]] = [
    (Decimal, "$decimal", str, Decimal),
    (datetime, "$datetime", encode_moment, partial(decode_moment, datetime)),
    (date, "$date", date.isoformat, date.fromisoformat),
    (time, "$time", encode_moment, partial(decode_moment, time)),
    (timedelta, "$microseconds", lambda d: str(d // _TICK), lambda s: int(s) * _TICK),
    (UUID, "$uuid", str, UUID),
    (bytes, "$bytes", lambda b: base64.b64encode(b).decode(), base64.b64decode),
]  # fmt: skip
_encoder = json.JSONEncoder(separators=(",", ":"))
_WRITERS = {kind: (tag, writer) for kind, tag, writer, _ in _SCALARS}
_READERS = {tag: reader for _, tag, _, reader in _SCALARS}


def encode(value: Any) -> str:
    """Encode a value as text for any database.

    Raises:
        UnstorableValue: some part would not come back the same, or the value is nested more than
            `DEEPEST` levels deep.
    """
    if is_too_deep(value):
        raise UnstorableValue(_TOO_DEEP)
    try:
        return _encoder.encode(_plain(value, "the value"))
    except RecursionError as error:
        raise UnstorableValue(_TOO_DEEP) from error
    except ValueError as error:  # Python writes no integer of more than 4300 digits
        raise UnstorableValue(f"the value cannot be written: {error}") from error


def decode(text: str) -> Any:
    """Decode a value from the text of `encode`.

    Raises:
        UnreadableValue: the text is damaged, or comes from a newer version of `encode`.
    """
    try:
        value = _rich(json.loads(text, parse_constant=_refuse_constant))
    except UnreadableValue:
        raise
    except Exception as error:  # whatever the readers make of a damaged text
        raise UnreadableValue(describe_error(error, longest=300)) from error
    if is_too_deep(value, text=text):
        raise UnreadableValue(_TOO_DEEP)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise UnreadableValue(f"it holds {name}, which the journal never writes")


def _plain(value: Any, where: str) -> Any:
    kind = type(value)  # a subclass would come back as its base
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if kind is list:
        return [_plain(item, f"{where}[{n}]") for n, item in enumerate(value)]
    if kind is tuple:
        return {"$tuple": [_plain(item, f"{where}[{n}]") for n, item in enumerate(value)]}
    if kind is dict:
        return _plain_dict(value, where)
    if isinstance(value, datetime | time):
        check_moment(value, where)
    if kind in _WRITERS:
        tag, write = _WRITERS[kind]
        return {tag: write(value)}
    raise UnstorableValue(
        f"{where} is {shown(value)} of type {kind.__name__}, which the journal cannot keep: "
        "return JSON values, Decimal, datetime, date, time, timedelta, UUID, bytes or tuple"
    )


def _plain_dict(value: dict[Any, Any], where: str) -> dict[str, Any]:
    for key in value:
        if type(key) is not str:
            raise UnstorableValue(f"{where} has the key {shown(key)}; the journal keeps str keys")
    plain = {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    # Or `decode` would take the user's own key for the tag of a type.
    if len(plain) == 1 and next(iter(plain)).startswith("$"):
        return {"$dict": plain}
    return plain


def _rich(value: Any) -> Any:
    """Replace each object with a type's tag by the value, in place.

    From the outside in: the keys within a `$dict` are the user's. Without recursion: a damaged
    text may be nested deeper than Python's stack.
    """
    root: list[Any] = [value]
    slots: list[tuple[Any, Any]] = [(root, 0)]
    tuples: list[tuple[Any, Any]] = []
    while slots:
        container, at = slots.pop()
        found = container[at]
        if isinstance(found, dict) and len(found) == 1:
            ((tag, inner),) = found.items()
            if tag in _READERS:
                container[at] = _READERS[tag](inner)
                continue
            found = _untagged(tag, inner, found)
            container[at] = found
            if tag == "$tuple":
                tuples.append((container, at))
        if isinstance(found, dict):
            slots.extend((found, key) for key in found)
        elif isinstance(found, list):
            slots.extend((found, at) for at in range(len(found)))
    for container, at in reversed(tuples):  # the inner ones first
        container[at] = tuple(container[at])
    return root[0]


def _untagged(tag: str, inner: Any, found: dict[str, Any]) -> Any:
    """Unwrap `$dict` and `$tuple`; return any further dict as given."""
    if (tag == "$dict" and isinstance(inner, dict)) or (tag == "$tuple" and type(inner) is list):
        return inner
    if tag.startswith("$"):
        raise UnreadableValue(f"it holds the type {tag!r:.80}, which a newer version may know")
    return found
