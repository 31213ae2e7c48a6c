"""Show URLs that may hold a user and a password, without showing either."""

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


def redacted(url: str) -> str:
    """Return the URL without user and password, also where it is badly quoted.

    What stands before the last `@` may be theirs; of it only the scheme is kept, where it is one.
    """
    before, at, after = url.rpartition("@")
    if not at:
        return url
    scheme = scheme_of(before)
    return f"{scheme}://{after}" if scheme else after


def scheme_of(url: str) -> str:
    """Return the scheme of a URL; empty where the text before `://` is none."""
    scheme, separator, _ = url.partition("://")
    return scheme if separator and _SCHEME.fullmatch(scheme) else ""
