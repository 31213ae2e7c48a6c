"""Set `sagas` up when Django starts."""

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

from saga_runtime import project_settings


class SagasConfig(AppConfig):
    """Configure sagaz, find the apps' sagas and check them, before any command runs."""

    name = "sagas"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Sagas"

    def ready(self) -> None:
        """Hand `settings.SAGAZ` to sagaz, find every app's sagas, register the checks.

        Raises:
            ImproperlyConfigured: a setting, or what an app declares, cannot be carried out.
        """
        from sagas import checks
        from sagas.definition import discovery, sagaz_configuration, sagaz_entry_points
        from sagas.definition.cross_checks import check_references

        configuration = sagaz_configuration.configure(
            getattr(settings, "SAGAZ", {}), database_url=getattr(settings, "DATABASE_URL", "")
        )
        sagaz_entry_points.disable()
        discovery.discover()
        # The apps' modules are imported only now, and might have configured sagaz themselves.
        sagaz_configuration.check_unchanged(configuration)
        check_references()
        register(project_settings.check_settings, project_settings.TAG)
        register(checks.check_sagaz_integration, checks.TAG)
        register(checks.check_unfinished_sagas, checks.TAG, deploy=True)
