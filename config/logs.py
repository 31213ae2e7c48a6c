"""How log lines look: each carries the correlation id of the request or message it is about."""

from typing import Any

FORMAT = "{asctime} {levelname} {name} [{correlation_id}] {message}"


def logging_config(*, level: str) -> dict[str, Any]:
    """Django's LOGGING. The root handler also keeps sagaz, which calls basicConfig, quiet."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"correlation": {"()": "outbox.correlation.CorrelationFilter"}},
        "formatters": {
            "line": {
                "class": "saga_runtime.logs.OneLineFormatter",
                "format": FORMAT,
                "style": "{",
            }
        },
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "filters": ["correlation"],
            }
        },
        "root": {"handlers": ["console"], "level": level.upper()},
        "loggers": {
            # sagaz writes two errors for each declined order, which our own journal tells better.
            "sagaz": {"level": "CRITICAL"},
            "saga": {"level": "CRITICAL"},
            "stripe": {"level": "WARNING"},  # two lines for each request otherwise
            # kafka-python writes twenty lines for each broker that is away; we write one.
            "kafka": {"level": "CRITICAL"},
            # It tells of each try to connect; what that means is told by whoever needed one.
            "psycopg.pool": {"level": "ERROR"},
            # It tells of each request that waits for a thread.
            "waitress.queue": {"level": "ERROR"},
            "django.server": {"handlers": [], "level": "WARNING", "propagate": True},
            "django.request": {"level": "ERROR"},
            # A wrong Host header is the client's mistake, and answered as one.
            "django.security.DisallowedHost": {"handlers": [], "level": "CRITICAL"},
        },
    }
