"""Configure the relay for Django."""

from django.apps import AppConfig


class RelayConfig(AppConfig):
    """Define the app of the command `run_outbox_relay`."""

    name = "relay"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Message relay"
