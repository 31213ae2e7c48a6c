"""Connect for NOTIFY and LISTEN: beside Django's pool, and past a connection pooler.

Behind a pooler a notification would reach nobody.
"""

from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections

from saga_runtime import project_settings

CHANNEL = "outbox"
CONNECT_TIMEOUT = 5  # seconds
# A connection that only listens would never notice a dead peer.
_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def connect(name: str) -> "psycopg.Connection[tuple[object, ...]]":
    """Connect in autocommit mode to the DIRECT_URL, or else to Django's default database.

    Args:
        name: PostgreSQL's `application_name` for the connection.

    Raises:
        psycopg.Error: no connection.
    """
    params: dict[str, Any] = {"conninfo": project_settings.direct_url()}
    if not params["conninfo"]:
        params = connections.create_connection(DEFAULT_DB_ALIAS).get_connection_params()
        params.pop("pool", None)
    params |= {"application_name": name, "connect_timeout": CONNECT_TIMEOUT} | _KEEPALIVES
    return psycopg.connect(autocommit=True, **params)
