"""Show URLs without their users and passwords."""

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


def redacted(url: str) -> str:
    """Return the URL without user and password, also a badly quoted URL.

    All text before the last `@` may belong to both, so only the scheme is kept, if there is a
    scheme.
    """
    before, at, after = url.rpartition("@")
    if not at:
        return url
    scheme = scheme_of(before)
    return f"{scheme}://{after}" if scheme else after


def scheme_of(url: str) -> str:
    """Return the scheme of a URL; empty where the text before `://` is no scheme."""
    scheme, separator, _ = url.partition("://")
    return scheme if separator and _SCHEME.fullmatch(scheme) else ""
