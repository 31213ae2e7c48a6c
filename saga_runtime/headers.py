"""Tell which message headers the outbox sets: an application cannot set these."""

_OURS = frozenset({"content-type", "traceparent", "x-correlation-id"})


def is_reserved(name: str) -> bool:
    """Tell whether the outbox itself sets the header of this name, in any letter case.

    Reserved are `ce_…`, `content-type`, `traceparent` and `x-correlation-id`. `tracestate` is not:
    only the caller knows its value.
    """
    lower = name.lower()
    return lower.startswith("ce_") or lower in _OURS
