"""The `wait` preference of the Prefer header (RFC 7240, section 4.3)."""

import re

MAX_WAIT = 30

_WAIT = re.compile(r'wait\s*=\s*"?([0-9]{1,9})"?', re.IGNORECASE)


def wanted_wait(header: str) -> int | None:
    """The seconds to wait, at most 30; None where the client asks for none."""
    for preference in header.split(","):
        found = _WAIT.fullmatch(preference.split(";")[0].strip())
        if found:
            return min(int(found[1]), MAX_WAIT)
    return None


def applied(wait: int) -> str:
    """The value of Preference-Applied."""
    return f"wait={wait}"
