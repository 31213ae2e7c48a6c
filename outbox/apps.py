"""Register the app `outbox` with Django."""

from django.apps import AppConfig
from django.core.checks import register


class OutboxConfig(AppConfig):
    """Configure the app, and register the database checks."""

    name = "outbox"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Outbox"

    def ready(self) -> None:
        """Register the checks."""
        from outbox import checks

        register(checks.check_database, checks.TAG)
