"""Django's configuration of the relay."""

from django.apps import AppConfig


class RelayConfig(AppConfig):
    """The app with the command `run_outbox_relay`."""

    name = "relay"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Message relay"
