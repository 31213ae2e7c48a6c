"""Register the app `orders` with Django."""

from django.apps import AppConfig
from django.core.checks import register


class OrdersConfig(AppConfig):
    """Configure the app, and register its check."""

    name = "orders"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Orders"

    def ready(self) -> None:
        """Register the check."""
        from orders import checks

        register(checks.check_routers, checks.TAG)
