from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from saga_runtime.read_only_admin import ReadOnlyAdmin
from sagas.models import PAUSED_OR_NOT, Intervention, RefusedCommand, Saga, SagaStep


class StepInline(ReadOnlyAdmin, admin.TabularInline):
    model = SagaStep
    extra = 0
    ordering = ("started_at", "id")


class InterventionInline(ReadOnlyAdmin, admin.TabularInline):
    model = Intervention
    extra = 0


@admin.register(Saga)
class SagaAdmin(ReadOnlyAdmin, admin.ModelAdmin):
    list_display = ("key", "name", "status", "failure", "park_reason", "created_at")
    list_filter = ("status",)  # the names to choose from would be read from all rows
    search_fields = ("key__exact",)
    search_help_text = "The whole business key."
    ordering = ("-created_at",)
    show_full_result_count = False
    inlines = (StepInline, InterventionInline)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Saga]:
        return super().get_queryset(request).filter(PAUSED_OR_NOT)


@admin.register(RefusedCommand)
class RefusedCommandAdmin(ReadOnlyAdmin, admin.ModelAdmin):
    list_display = ("topic", "partition", "offset", "reason", "received_at")
    exclude = ("key", "value")
    readonly_fields = ("key_text", "value_text")

    @admin.display(description="key")
    def key_text(self, command: RefusedCommand) -> str:
        return bytes(command.key or b"").decode(errors="replace")

    @admin.display(description="value")
    def value_text(self, command: RefusedCommand) -> str:
        return bytes(command.value or b"").decode(errors="replace")
