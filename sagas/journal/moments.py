"""Write and read the moments of the journal, with zone and fold.

A moment is an ISO text, as in `"2026-10-25T02:30:00+00:00"`. A moment with a named zone, or in the
second pass of a repeated hour, is a list of text, name (or null) and fold:
`["2026-10-25T02:30:00", "Europe/Berlin", 1]`.
"""

from datetime import datetime, time, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from sagas.errors import UnstorableValue

Moment = datetime | time


def check_moment(moment: Moment, where: str) -> None:
    """Refuse a moment whose zone has neither a name nor the same offset all year.

    Args:
        moment: a datetime or a time.
        where: the value's place, for the sentence.

    Raises:
        UnstorableValue: the moment would come back without the zone.
    """
    zone = moment.tzinfo
    if zone is None or type(zone) is timezone or _name(zone) or zone.utcoffset(None) is not None:
        return
    raise UnstorableValue(
        f"{where} is {moment!r:.80}, whose zone the journal cannot keep: use zoneinfo.ZoneInfo(…), "
        "or UTC"
    )


def encode_moment(moment: Moment) -> str | list[Any]:
    """Encode a moment as a value of JSON."""
    name = _name(moment.tzinfo)
    if name is None and not moment.fold:
        return moment.isoformat()
    # Wall clock and fold, without the offset: by the zone's name both give the same moment back.
    bare = moment if name is None else moment.replace(tzinfo=None)
    return [bare.isoformat(), name, moment.fold]


def decode_moment(kind: type[Moment], written: str | list[Any]) -> Moment:
    """Decode a moment, a datetime or a time, from the value of `encode_moment`."""
    if isinstance(written, str):
        return kind.fromisoformat(written)
    text, name, fold = written
    moment = kind.fromisoformat(text)
    zone = moment.tzinfo if name is None else ZoneInfo(name)
    return moment.replace(tzinfo=zone, fold=fold)


def _name(zone: tzinfo | None) -> str | None:
    return zone.key if type(zone) is ZoneInfo else None
