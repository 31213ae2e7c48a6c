from django.contrib import admin

from outbox.models import OutboxMessage, ParkedIntervention, ParkedMessage
from saga_runtime.read_only_admin import ReadOnlyAdmin


class _MessageAdmin(ReadOnlyAdmin, admin.ModelAdmin):
    @admin.display(description="payload")
    def text(self, message: OutboxMessage | ParkedMessage) -> str:
        return bytes(message.payload).decode(errors="replace")


@admin.register(OutboxMessage)
class OutboxMessageAdmin(_MessageAdmin):
    list_display = ("id", "topic", "type", "key", "created_at")
    search_fields = ("key", "correlation_id")
    show_full_result_count = False
    exclude = ("payload",)
    readonly_fields = ("text",)


@admin.register(ParkedMessage)
class ParkedMessageAdmin(_MessageAdmin):
    list_display = ("id", "topic", "type", "key", "reason", "parked_at")
    search_fields = ("key", "correlation_id")
    exclude = ("payload",)
    readonly_fields = ("text",)


@admin.register(ParkedIntervention)
class ParkedInterventionAdmin(ReadOnlyAdmin, admin.ModelAdmin):
    list_display = ("id", "at", "action", "message", "key", "who", "why")
    search_fields = ("key", "who")
    exclude = ("payload_before",)
    readonly_fields = ("text",)

    @admin.display(description="payload before")
    def text(self, row: ParkedIntervention) -> str:
        return bytes(row.payload_before or b"").decode(errors="replace")
