"""Read the `wait` preference of the Prefer header (RFC 7240, section 4.3)."""

import re
from collections.abc import Iterator

MAX_WAIT = 30  # seconds

# Possessive throughout (`++`, `*+`, `?+`): what has matched is never given back, so a header is
# read in one go. Each part begins with another character than the one before can go on with, so
# nothing is missed by that; with `+` and `*` a header of 60 bytes could keep a process for weeks.
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # noqa: S105 - the grammar's name for a word
_WORD = rf'(?:{_TOKEN}|"(?:[^"\\]|\\.)*+")'
_VALUE = rf"(?:[ \t]*+=[ \t]*+({_WORD})?+)?+"
# A name with a value or without, then parameters, which `wait` has none of.
_PREFERENCE = re.compile(
    rf"[ \t]*+({_TOKEN}){_VALUE}(?:[ \t]*+;[ \t]*+(?:{_TOKEN}{_VALUE})?+)*+[ \t]*+(?:,|$)"
)
_EMPTY = re.compile(r"[ \t,]*")
_SECONDS = re.compile(r"[0-9]{1,9}")


def wanted_wait(header: str) -> int | None:
    """Read how long the client is willing to wait.

    Args:
        header: the value of Prefer; what follows a part that is no preference is ignored.

    Returns:
        Seconds, at most 30; None where the client asks for no wait.
    """
    for name, value in _preferences(header):
        if name.lower() == "wait":  # the first one counts
            text = re.sub(r"\\(.)", r"\1", value.removeprefix('"').removesuffix('"'))
            return min(int(text), MAX_WAIT) if _SECONDS.fullmatch(text) else None
    return None


def preference_applied(wait: int) -> str:
    """Build the value of Preference-Applied, from seconds."""
    return f"wait={wait}"


def _preferences(header: str) -> Iterator[tuple[str, str]]:
    """Yield names and values, up to the first part that is no preference."""
    position = 0
    while position < len(header):
        empty = _EMPTY.match(header, position)
        found = _PREFERENCE.match(header, empty.end() if empty else position)
        if found is None:
            return
        yield found[1], found[2] or ""
        position = found.end()
