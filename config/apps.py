"""Register the app `config` with Django: its templates and commands."""

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """Configure the app."""

    name = "config"
    default_auto_field = "django.db.models.BigAutoField"
