"""Register the app `outbox` with Django."""

from django.apps import AppConfig
from django.core.checks import register

from saga_runtime import project_settings


class OutboxConfig(AppConfig):
    """Configure the app, and register the database checks."""

    name = "outbox"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Outbox"

    def ready(self) -> None:
        """Register the checks."""
        from outbox import checks

        register(project_settings.check_settings, project_settings.TAG)
        register(checks.check_database, checks.TAG)
