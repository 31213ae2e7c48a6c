"""Name topics, message types and the saga as they stand on the wire; see docs/messages.md."""

COMMANDS = "orders.commands"
EVENTS = "orders.events"

PLACE_ORDER = "orders.place"
CANCEL_ORDER = "orders.cancel"

ORDER_FULFILLED = "order.fulfilled"
ORDER_REJECTED = "order.rejected"
ORDER_CANCELLED = "order.cancelled"

SAGA_NAME = "order"
