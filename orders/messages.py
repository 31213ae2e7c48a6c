"""The names on the wire; docs/messages.md has the schemas."""

COMMANDS = "orders.commands"
EVENTS = "orders.events"

PLACE_ORDER = "orders.place"
CANCEL_ORDER = "orders.cancel"

ORDER_FULFILLED = "order.fulfilled"
ORDER_REJECTED = "order.rejected"
ORDER_CANCELLED = "order.cancelled"

SAGA_NAME = "order"
