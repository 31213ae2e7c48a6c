"""What JSON two readers could take differently is refused, whoever reads it."""

from decimal import Decimal

import pytest

from saga_runtime.strict_json import UnreadableJSON, name_twice, read_json


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b'{"a": 1, "a": 2}', "has the name 'a' twice in an object"),
        (b'{"a": 1, "\\u0061": 1}', "has the name 'a' twice in an object"),
        (b'[{"x": {"b": 1, "b": 1}}]', "has the name 'b' twice in an object"),
        (b'{"\\u001b[1m": 1, "\\u001b[1m": 2}', "has the name '\\\\x1b[1m' twice in an object"),
        (b"NaN", "is not JSON: NaN is not a JSON number"),
        (b'{"a": -Infinity}', "is not JSON: -Infinity is not a JSON number"),
        (b"[" * 65 + b"]" * 65, "is nested too deeply: more than 64 levels"),
        (b"[" * 100_000, "is nested too deeply: more than 64 levels"),
        (b"", "is not JSON: Expecting value"),
        (b"\xff", "is not JSON in UTF-8: "),
        ('{"a": 1}'.encode("utf-16"), "is not JSON in UTF-8: "),
        (b"1" * 5_000, "is not JSON: "),
    ],
)
def test_refused(text: bytes, complaint: str) -> None:
    with pytest.raises(UnreadableJSON) as refused:
        read_json(text)
    assert str(refused.value).startswith(complaint)


def test_read() -> None:
    assert read_json(b'{"a": [1, 2.5, null], "b": {"a": "\xc3\xa9"}}') == {
        "a": [1, 2.5, None],
        "b": {"a": "é"},
    }
    assert read_json("[" * 64 + "]" * 64)
    assert read_json("[1, 0.10]", parse_int=str, parse_float=Decimal) == ["1", Decimal("0.10")]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({1: "a", "1": "b"}, "1"),
        ([{"x": ({None: 1, "null": 2},)}], "null"),
        ({True: 1, "true": 2}, "true"),
        ({2.5: 1, "2.5": 2}, "2.5"),
        ({1: "a", "b": {"1": "c"}}, None),
        ({"a": {"x": 1}, "b": {"x": 1}}, None),
        ("text", None),
    ],
)
def test_names_that_are_one_in_json(value: object, name: str | None) -> None:
    assert name_twice(value) == name
