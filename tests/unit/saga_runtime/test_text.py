"""Text of foreign origin: stored, logged and shown as it is, never interpreted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_runtime.text import (
    LONGEST_ERROR,
    cut,
    describe_error,
    error_text,
    is_storable,
    leaves,
    one_line,
    one_line_error,
    storable,
    visible,
)

pytestmark = pytest.mark.filterwarnings("error")


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class LeavingError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class NotEvenTextError(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # noqa: PLE0307


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (ValueError("a\0b"), "ValueError: a\\0b"),
        (ValueError("a\udc80b"), "ValueError: a\\udc80b"),
        (KeyError("x"), "KeyError: 'x'"),
        (UnprintableError(), "UnprintableError: (its text cannot be made: ValueError)"),
        (LeavingError(), "LeavingError: (its text cannot be made: SystemExit)"),
        (NotEvenTextError(), "NotEvenTextError: (its text cannot be made: TypeError)"),
        (
            ExceptionGroup("unhandled", [ValueError("a"), ExceptionGroup("in", [KeyError("b")])]),
            "ExceptionGroup: unhandled (2 sub-exceptions): ValueError: a; KeyError: 'b'",
        ),
    ],
)
def test_any_error_can_be_described(error: Exception, text: str) -> None:
    assert describe_error(error) == text


def test_a_group_nested_deeper_than_the_stack_has_its_leaf() -> None:
    error: Exception = ValueError("deep")
    for _ in range(50_000):
        error = ExceptionGroup("g", [error])
    assert [str(each) for each in leaves(error)] == ["deep"]
    while isinstance(error, ExceptionGroup):  # taken apart, or freeing it would recurse
        error = error.exceptions[0]


def test_a_long_text_is_cut_with_its_beginning_and_end() -> None:
    described = describe_error(ValueError("begin " + "x" * 3_000_000 + " end"))
    assert len(described) <= LONGEST_ERROR
    assert described.startswith("ValueError: begin x")
    assert described.endswith("x end")
    assert "more characters" in described


@pytest.mark.parametrize("longest", [0, 1, 5, 40, 100])
def test_a_cut_is_never_longer_than_asked(longest: int) -> None:
    assert len(cut("y" * 1000, longest)) <= longest
    assert cut("short", 5) == "short"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\r\nb\tc", "a b c"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("x\u202eabc", "x\\u202eabc"),
        ("a\x85b\u2028c", "a b c"),
        ("nul\0", "nul\\x00"),
        ("\udc80", "\\udc80"),
        ("grün 注文 [/x]", "grün 注文 [/x]"),
    ],
)
def test_a_line_is_not_obeyed(text: str, line: str) -> None:
    assert one_line(text) == line


def test_an_error_without_a_text_gives_its_type() -> None:
    assert one_line_error(TimeoutError()) == "TimeoutError"
    assert one_line_error(OSError("a\nb")) == "a b"
    assert error_text(OSError("a\nb")) == "a\nb"


@given(st.text(st.characters(codec=None), max_size=50))
def test_what_is_made_storable_is_storable(text: str) -> None:
    assert is_storable(storable(text))
    assert is_storable(text) == (storable(text) == text)
    assert visible(one_line(text)).isprintable() or " " in one_line(text)
    assert "\n" not in visible(text)
    assert "\x1b" not in visible(text)


@pytest.mark.parametrize("text", [None, 7, b"x", "a\0", "\ud800", "x" * 256])
def test_what_is_not_storable(text: object) -> None:
    assert not is_storable(text, longest=255)
