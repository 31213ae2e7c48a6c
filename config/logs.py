"""How log lines look: each carries the correlation id of the request or message it is about."""

import logging
from http import HTTPStatus
from typing import Any

FORMAT = "{asctime} {levelname} {name} [{correlation_id}] {message}"


class ToldFilter(logging.Filter):
    """Leaves out Django's own line for an answer of 503: who answers it has written one, with its
    reason, under the correlation id that is gone when Django's is written."""

    def filter(self, record: logging.LogRecord) -> bool:
        is_503 = getattr(record, "status_code", None) == HTTPStatus.SERVICE_UNAVAILABLE
        return not is_503 or record.exc_info is not None


def logging_config(*, level: str) -> dict[str, Any]:
    """Django's LOGGING. The root handler also keeps sagaz, which calls basicConfig, quiet."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {
            "correlation": {"()": "saga_runtime.correlation.CorrelationFilter"},
            "told": {"()": "config.logs.ToldFilter"},
        },
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
            "django.request": {"level": "ERROR", "filters": ["told"]},
            # A wrong Host header is the client's mistake, and answered as one.
            "django.security.DisallowedHost": {"handlers": [], "level": "CRITICAL"},
        },
    }
