"""Tell which message headers are ours: an application's own headers cannot displace them."""

_OURS = frozenset({"content-type", "traceparent", "x-correlation-id"})


def is_reserved(name: str) -> bool:
    """Tell whether a header's name, in any letter case, is CloudEvents' or one that the outbox sets
    itself: `ce_…`, `content-type`, `traceparent`, `x-correlation-id`. Not `tracestate`: only the
    caller knows it."""
    lower = name.lower()
    return lower.startswith("ce_") or lower in _OURS
