"""Name the message headers set by the outbox, which an application cannot set."""

_OURS = frozenset({"content-type", "traceparent", "x-correlation-id"})


def is_reserved(name: str) -> bool:
    """Tell whether the outbox itself sets the header of this name, in any letter case.

    Reserved are `ce_…`, `content-type`, `traceparent` and `x-correlation-id`. `tracestate` is free:
    only the caller knows the value.
    """
    lower = name.lower()
    return lower.startswith("ce_") or lower in _OURS
