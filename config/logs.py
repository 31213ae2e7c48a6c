"""Configure log lines: each carries the correlation id of its request or message."""

import logging
from http import HTTPStatus
from typing import Any

FORMAT = "{asctime} {levelname} {name} [{correlation_id}] {message}"


class ServiceUnavailableFilter(logging.Filter):
    """Drop Django's own line for an answer of 503.

    The code that answers 503 has written a line already, with the reason and the correlation id,
    which is gone when Django writes.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record but the line for an answer of 503 without an exception."""
        is_503 = getattr(record, "status_code", None) == HTTPStatus.SERVICE_UNAVAILABLE
        return not is_503 or record.exc_info is not None


def logging_config(*, level: str) -> dict[str, Any]:
    """Build Django's LOGGING; its root handler also keeps sagaz quiet, which calls `basicConfig`.

    Args:
        level: the lowest level to be written, such as `INFO`.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {
            "correlation": {"()": "saga_runtime.correlation.CorrelationFilter"},
            "service_unavailable": {"()": "config.logs.ServiceUnavailableFilter"},
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
            # One line for each try to connect; the caller who needs a connection writes its own.
            "psycopg.pool": {"level": "ERROR"},
            # One line for each request that waits for a thread.
            "waitress.queue": {"level": "ERROR"},
            "django.server": {"handlers": [], "level": "WARNING", "propagate": True},
            "django.request": {"level": "ERROR", "filters": ["service_unavailable"]},
            # A wrong Host header is the client's mistake, and answered as one.
            "django.security.DisallowedHost": {"handlers": [], "level": "CRITICAL"},
        },
    }
