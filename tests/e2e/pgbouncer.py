"""PgBouncer in transaction mode, from Debian's package of that name."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg

from tests.e2e.service import until
from tests.ports import free_port
from tests.services import do_without

POOL_SIZE = 2


@dataclass(frozen=True, slots=True)
class PgBouncer:
    port: int
    pool_size: int = POOL_SIZE


@contextmanager
def running_pgbouncer(server_url: str) -> Iterator[PgBouncer]:
    """In front of every database of this server."""
    binary = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        do_without("needs PgBouncer: `apt-get install pgbouncer`")
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)  # it gives up being root
        config = directory / "pgbouncer.ini"
        config.write_text(_config(server_url, port))
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        with subprocess.Popen([binary, "-q", *user, config]) as process:
            try:
                until(lambda: _answers(server_url, port), timeout=20)
                yield PgBouncer(port)
            finally:
                process.terminate()


def _config(server_url: str, port: int) -> str:
    """`options` are our limits of statements, which it cannot hand on: see docs/relay.md."""
    url = urlsplit(server_url)
    password = f" password={unquote(url.password)}" if url.password else ""
    return f"""
[databases]
* = host={url.hostname} port={url.port or 5432} user={url.username}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {POOL_SIZE}
ignore_startup_parameters = options, extra_float_digits
"""


def _answers(server_url: str, port: int) -> bool:
    url = urlsplit(server_url)
    try:
        psycopg.connect(
            host="127.0.0.1", port=port, user=url.username, dbname=url.path.strip("/")
        ).close()
    except psycopg.OperationalError:
        return False
    return True
