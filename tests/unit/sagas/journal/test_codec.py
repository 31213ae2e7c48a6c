import json
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagas.errors import UnstorableValue
from sagas.journal import codec


def everything(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.text(st.characters()) | st.sampled_from(
        ["$decimal", "$dict", "$tuple", "$", "$bytes", "$uuid"]
    )
    return (
        st.lists(children, max_size=4)
        | st.lists(children, max_size=4).map(tuple)
        | st.dictionaries(keys, children, max_size=4)
    )


ANYTHING = st.text(st.characters(codec=None, categories=None)) | st.characters(categories=["Cs"])
ZONES = st.sampled_from(
    [UTC, timezone(timedelta(hours=-3, minutes=-30)), ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")]
)
FOLDS = st.sampled_from([0, 1])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANYTHING
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.none() | ZONES)
    | st.builds(lambda moment, fold: moment.replace(fold=fold), st.datetimes(), FOLDS)
    | st.dates()
    | st.times(timezones=st.none() | ZONES)
    | st.builds(lambda moment, fold: moment.replace(fold=fold), st.times(), FOLDS)
    | st.timedeltas()
    | st.uuids()
    | st.binary(),
    everything,
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, datetime | time):
        return (one, one.fold, one.tzinfo) == (other, other.fold, other.tzinfo)
    return bool(one == other)


@given(VALUES)
def test_what_goes_in_comes_out(value: Any) -> None:
    text = codec.encode(value)
    assert same(codec.decode(text), value)
    # PostgreSQL stores neither NUL nor a lone surrogate.
    assert text.isascii()
    assert "\0" not in text


@given(VALUES)
def test_it_is_json(value: Any) -> None:
    json.loads(codec.encode(value), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    "value",
    [
        Decimal("1.50"),
        Decimal("-0"),
        Decimal("1E+3"),
        datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        date(2026, 1, 2),
        time(1, 2, 3, 4),
        timedelta(days=-1, microseconds=1),
        UUID(int=5),
        b"\0\xff",
        (),
        ((1,), [2]),
        {"$decimal": "not one"},
        {"$dict": {"$tuple": [1]}},
        {"$decimal": 1, "another": 2},
        "a\0b\ud800",
        {"a\0": "\udfff"},
        10**300,
        -0.0,
    ],
)
def test_these_come_out(value: Any) -> None:
    again = codec.decode(codec.encode(value))
    assert same(again, value)
    assert repr(again) == repr(value)


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 1


class Money(Decimal):
    """Would come back as a plain Decimal."""


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"order": {"when": object()}}, r"\['order'\]\['when'\].*object"),
        ([1, {2}], r"\[1\].*set"),
        ({"a": (1, float("nan"))}, r"\['a'\]\[1\] is nan"),
        (float("inf"), "inf"),
        ({5: "x"}, "key 5"),
        ({("a",): 1}, "key"),
        (Colour.RED, "Colour"),
        (Size.BIG, "Size"),
        (Money(1), "Money"),
        (lambda: 1, "function"),
        pytest.param(10**5000, "cannot be written", id="huge"),
        (bytearray(b"x"), "bytearray"),
    ],
)
def test_what_would_not_come_out_the_same_is_named(value: Any, named: str) -> None:
    with pytest.raises(UnstorableValue, match=named):
        codec.encode(value)


def test_a_dict_of_another_type_is_not_kept_as_if_it_were_one() -> None:
    with pytest.raises(UnstorableValue, match="OrderedDict"):
        codec.encode({"x": OrderedDict(a=1)})


def test_one_that_holds_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnstorableValue, match="nested too deeply"):
        codec.encode(loop)


class TestAMomentWithAZone:
    @pytest.mark.parametrize("fold", [0, 1])
    def test_keeps_its_zone_and_which_of_two_hours_it_is(self, fold: int) -> None:
        moment = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
        back = codec.decode(codec.encode(moment))
        assert (back.tzinfo, back.fold) == (moment.tzinfo, fold)
        assert back.utcoffset() == timedelta(hours=2 - fold)
        assert same(codec.decode(codec.encode(moment.timetz())), moment.timetz())

    def test_of_an_offset_is_one_text(self) -> None:
        before = '{"$datetime":"2026-10-25T02:30:00+01:00"}'
        assert codec.decode(before) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
        assert codec.decode('{"$time":"02:30:00"}') == time(2, 30)

    def test_of_an_offset_that_never_changes_is_kept(self) -> None:
        moment = datetime(2026, 10, 25, 2, 30, tzinfo=Elsewhere(timedelta(hours=5)))
        assert codec.decode(codec.encode(moment)) == moment

    @pytest.mark.parametrize("kind", [datetime, time])
    def test_that_cannot_be_named_is_refused(self, kind: type) -> None:
        moment: Any = datetime(2026, 10, 25, 2, 30, tzinfo=Elsewhere(None))
        with pytest.raises(UnstorableValue, match=r"zone the journal cannot keep: use zoneinfo"):
            codec.encode({"at": moment if kind is datetime else moment.timetz()})


class Elsewhere(tzinfo):
    """A zone of a library's own, with this offset for all the year, or none that is the same."""

    def __init__(self, offset: timedelta | None) -> None:
        self._offset = offset

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return self._offset if moment is None or self._offset else timedelta(hours=1)

    def dst(self, _: datetime | None) -> timedelta | None:
        return None

    def tzname(self, _: datetime | None) -> str | None:
        return None
