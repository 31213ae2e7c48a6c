"""Runs, on PostgreSQL, every test of Django's own test database: `make test DB=postgresql`.

Elsewhere these tests run on SQLite. pytest-django reads DATABASE_URL before any plugin of ours
could start a server, so the server is found or started here, and pytest runs meanwhile.

    python -m tests.on_postgresql [what pytest takes]
"""

import os
import subprocess
import sys
import uuid
from urllib.parse import urlsplit

from tests.services import running_postgres
from tests.shared import Kept, NotHereError


def main() -> int:
    """Return pytest's exit code."""
    servers = Kept()
    try:
        url = servers.get("postgres", running_postgres)
        # A name of this run's own: several runs may use one server.
        path = f"/run_{uuid.uuid4().hex[:12]}"
        own = {
            "DB": "postgresql",
            "DATABASE_URL": urlsplit(url)._replace(path=path).geturl(),
            "TEST_DATABASE_URL": url,
            # Emptying all tables takes longer than a request's statement may on a busy machine.
            "DATABASE_STATEMENT_TIMEOUT": os.environ.get("DATABASE_STATEMENT_TIMEOUT", "120"),
        }
        command = [sys.executable, "-m", "pytest", *sys.argv[1:]]
        return subprocess.run(command, env=os.environ | own, check=False).returncode
    except NotHereError as error:
        sys.stdout.write(f"skipped: {error}\n")
        return int(os.environ.get("REQUIRE_SERVICES") == "1")
    finally:
        servers.close()


if __name__ == "__main__":
    sys.exit(main())
