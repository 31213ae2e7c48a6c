"""Show sagas and refused commands in the admin, for reading only."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from saga_runtime.read_only_admin import ReadOnlyAdmin
from sagas.models import PAUSED_OR_NOT, Intervention, RefusedCommand, Saga, SagaStep


class StepInline(ReadOnlyAdmin, admin.TabularInline):
    """Show the steps of a saga, in the order in which they began."""

    model = SagaStep
    extra = 0
    ordering = ("started_at", "id")


class InterventionInline(ReadOnlyAdmin, admin.TabularInline):
    """Show what people did about a saga."""

    model = Intervention
    extra = 0


@admin.register(Saga)
class SagaAdmin(ReadOnlyAdmin, admin.ModelAdmin):
    """List sagas, the newest first."""

    list_display = ("key", "name", "status", "failure", "park_reason", "created_at")
    list_filter = ("status",)  # the names to choose from would be read from all rows
    search_fields = ("key__exact",)
    search_help_text = "The whole business key."
    ordering = ("-created_at",)
    show_full_result_count = False
    inlines = (StepInline, InterventionInline)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Saga]:
        """Return all sagas, by a condition that lets PostgreSQL use the partial indexes."""
        return super().get_queryset(request).filter(PAUSED_OR_NOT)


@admin.register(RefusedCommand)
class RefusedCommandAdmin(ReadOnlyAdmin, admin.ModelAdmin):
    """List records that could not become commands."""

    list_display = ("topic", "partition", "offset", "reason", "received_at")
    exclude = ("key", "value")
    readonly_fields = ("key_text", "value_text")

    @admin.display(description="key")
    def key_text(self, command: RefusedCommand) -> str:
        """Return the record's key as text."""
        return bytes(command.key or b"").decode(errors="replace")

    @admin.display(description="value")
    def value_text(self, command: RefusedCommand) -> str:
        """Return the record's value as text."""
        return bytes(command.value or b"").decode(errors="replace")
