import os

from django.apps import AppConfig


class BackoffConfig(AppConfig):
    """Sagas wait between two attempts for as long as a test wants, and that is hardly at all."""

    name = "tests.e2e.project.backoff"

    def ready(self) -> None:
        from sagas.run import attempts

        attempts.FIRST_BACKOFF = float(os.environ.get("TEST_FIRST_BACKOFF", "0.01"))
        attempts.LONGEST_BACKOFF = float(os.environ.get("TEST_LONGEST_BACKOFF", "0.05"))
