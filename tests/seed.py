"""The order of the README's curl call."""

from typing import Any

ORDER: dict[str, Any] = {
    "order_id": "ORD-001",
    "user_id": "USER-123",
    "items": [{"id": "ITEM-1", "name": "Widget", "quantity": 2}],
    "amount": 99.99,
}
CORRELATION_ID = "my-trace-123"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def order(**changes: Any) -> dict[str, Any]:
    """The order with some of its fields changed."""
    return ORDER | changes


def item(**changes: Any) -> dict[str, Any]:
    """Its one item with some of its fields changed."""
    first: dict[str, Any] = ORDER["items"][0]
    return first | changes
