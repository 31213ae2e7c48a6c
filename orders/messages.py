"""The names on the wire; docs/messages.md has the schemas."""

COMMANDS = "orders.commands"
EVENTS = "orders.events"

PLACE_ORDER = "orders.place"

ORDER_FULFILLED = "order.fulfilled"
ORDER_REJECTED = "order.rejected"

SAGA_NAME = "order"
