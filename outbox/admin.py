"""Show the outbox, parked messages and interventions in Django's admin, read-only."""

from django.contrib import admin

from outbox.models import OutboxMessage, ParkedIntervention, ParkedMessage
from saga_runtime.read_only_admin import ReadOnlyAdmin


class _MessageAdmin(ReadOnlyAdmin, admin.ModelAdmin):
    """Show a message, with the payload as text."""

    @admin.display(description="payload")
    def text(self, message: OutboxMessage | ParkedMessage) -> str:
        """Decode the payload, with a mark for each byte that is not UTF-8."""
        return bytes(message.payload).decode(errors="replace")


@admin.register(OutboxMessage)
class OutboxMessageAdmin(_MessageAdmin):
    """Show the messages not yet published."""

    list_display = ("id", "topic", "type", "key", "created_at")
    search_fields = ("key", "correlation_id")
    show_full_result_count = False
    exclude = ("payload",)
    readonly_fields = ("text",)


@admin.register(ParkedMessage)
class ParkedMessageAdmin(_MessageAdmin):
    """Show parked messages, with the reason."""

    list_display = ("id", "topic", "type", "key", "reason", "parked_at")
    search_fields = ("key", "correlation_id")
    exclude = ("payload",)
    readonly_fields = ("text",)


@admin.register(ParkedIntervention)
class ParkedInterventionAdmin(ReadOnlyAdmin, admin.ModelAdmin):
    """Show what people did about parked messages."""

    list_display = ("id", "at", "action", "message", "key", "who", "why")
    search_fields = ("key", "who")
    exclude = ("payload_before",)
    readonly_fields = ("text",)

    @admin.display(description="payload before")
    def text(self, row: ParkedIntervention) -> str:
        """Decode the payload from before an edit or a skip."""
        return bytes(row.payload_before or b"").decode(errors="replace")
