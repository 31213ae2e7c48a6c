"""PostgreSQL servers of other versions than the one at hand: their binaries come from Maven, and a
server runs on a port of its own until the test ends.

A pytest plugin: `pytest_plugins = ["tests.postgres_versions"]`.
"""

import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.services import do_without

ARTIFACT = "io.zonky.test.postgres:embedded-postgres-binaries-linux-{}:{}"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64v8"}
NEWEST = "18.0.0"
DOWNLOAD_TIMEOUT = 90


@pytest.fixture(scope="session")
def newest_postgres_url() -> Iterator[str]:
    """The URL of a database on PostgreSQL 18, as a superuser."""
    with running_postgres(NEWEST) as url:
        yield url


@contextmanager
def running_postgres(version: str) -> Iterator[str]:
    """A server of this version, with nothing in it.

    Args:
        version: of the artifact, such as `18.0.0`.
    """
    # A place that an unprivileged user can reach: PostgreSQL does not run as root.
    with tempfile.TemporaryDirectory(prefix="postgres-") as directory:
        place = Path(directory)
        place.chmod(0o755)
        _download(version, place)
        user = "postgres" if os.geteuid() == 0 else None
        data = place / "data"
        data.mkdir()
        if user is not None:
            shutil.chown(data, user)
        port = free_port()
        _run(place, user, "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N")
        options = f"-p {port} -k {data} -c fsync=off -c listen_addresses=127.0.0.1"
        _run(place, user, "pg_ctl", "-D", data, "-o", options, "-l", data / "log", "-w", "start")
        try:
            yield f"postgres://postgres@127.0.0.1:{port}/postgres"
        finally:
            _run(place, user, "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def _download(version: str, place: Path) -> None:
    if shutil.which("mvn") is None:
        do_without(f"needs Maven (mvn), which fetches PostgreSQL {version}")
    artifact = ARTIFACT.format(MACHINES.get(platform.machine(), platform.machine()), version)
    fetched = subprocess.run(
        ["mvn", "-q", "-B", PLUGIN, f"-Dartifact={artifact}", f"-DoutputDirectory={place}"],
        capture_output=True,
        text=True,
        timeout=DOWNLOAD_TIMEOUT,
        check=False,
    )
    if fetched.returncode != 0:
        do_without(f"Maven does not fetch {artifact}: {fetched.stdout.strip()[:300]}")
    [jar] = place.glob("*.jar")
    with zipfile.ZipFile(jar) as archive:
        [packed] = [name for name in archive.namelist() if name.endswith(".txz")]
        with archive.open(packed) as file, tarfile.open(fileobj=file, mode="r:xz") as binaries:
            binaries.extractall(place, filter="data")


def _run(place: Path, user: str | None, program: str, *arguments: str | Path) -> None:
    subprocess.run(
        [place / "bin" / program, *arguments],
        user=user,
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
