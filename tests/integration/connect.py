"""Kafka Connect with Debezium's connector for PostgreSQL, as `deploy/debezium` ships it: a process
that a test starts and stops. Its jars come from Maven's repository, once, into a cache."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from brokers import broker_from_url
from brokers.kafka_broker import KafkaBroker
from tests.e2e.service import until
from tests.ports import free_port
from tests.processes import ROOT
from tests.services import do_without

SHIPPED = ROOT / "deploy" / "debezium"
PATIENCE = 120.0  # seconds: Java starts slowly on a busy machine
_FAILED = ("Task threw an uncaught and unrecoverable exception", "Failed to create connector")
_JAVA = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_FETCH_TIMEOUT = 400.0


def jars() -> Path:
    """The folder of the jars that `deploy/debezium/pom.xml` names."""
    if missing := [name for name in ("java", "mvn") if shutil.which(name) is None]:
        do_without(f"needs {' and '.join(missing)}, for Debezium")
    pom = SHIPPED / "pom.xml"
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "django-saga-outbox" / f"debezium-{digest}"
    if not folder.exists():
        _fetch(pom, folder)
    return folder


def _fetch(pom: Path, folder: Path) -> None:
    """All or nothing: another run may look for the folder meanwhile, or make it too."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        fetched = subprocess.run(
            ["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies",
             f"-DoutputDirectory={name}/jars"],
            capture_output=True, text=True, timeout=_FETCH_TIMEOUT, check=False,
        )  # fmt: skip
        if fetched.returncode:
            said = (fetched.stdout + fetched.stderr).strip().partition("\n")[0]
            do_without(f"needs Maven's repository, for Debezium: {said}")
        if not folder.exists():
            Path(name, "jars").rename(folder)


class Connect:
    """A worker with the connector. The files are as they are shipped, but for where the servers are
    and for the prefix of the test's topics.

    Args:
        directory: for its log and its offsets.
        database_url: prepared by `outbox.sql`, as a role that may replicate.
        broker_url: Kafka, with a prefix.
    """

    def __init__(self, directory: Path, *, database_url: str, broker_url: str, source: str) -> None:
        self.directory = directory
        self._jars = jars()
        self._env = _variables(database_url) | {"OUTBOX_SOURCE": source}
        self._log = directory / "connect.log"
        broker = broker_from_url(broker_url)
        assert isinstance(broker, KafkaBroker)
        self._write_worker(",".join(broker.address.servers))
        self._write_connector(broker.address.prefix)
        self._process: subprocess.Popen[bytes] | None = None

    def _write_worker(self, servers: str) -> None:
        own = (
            f"bootstrap.servers={servers}",
            f"listeners=http://127.0.0.1:{free_port()}",
            f"offset.storage.file.filename={self.directory / 'offsets'}",
        )
        shipped = (SHIPPED / "worker.properties").read_text()
        (self.directory / "worker.properties").write_text("\n".join((shipped, *own)))

    def _write_connector(self, prefix: str) -> None:
        connector: dict[str, Any] = json.loads((SHIPPED / "outbox-connector.json").read_text())
        config = connector["config"]
        # As the docs say for a URL with `prefix=`.
        for name in ("topic.prefix", "transforms.outbox.route.topic.replacement"):
            config[name] = prefix + config[name]
        self.heartbeats = f"__debezium-heartbeat.{config['topic.prefix']}"
        (self.directory / "outbox-connector.json").write_text(json.dumps(connector))

    def start(self) -> None:
        """Unless it runs. Does not wait for anything."""
        if self._process is not None and self._process.poll() is None:
            return
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*_JAVA, "-cp", f"{self._jars}/*", "org.apache.kafka.connect.cli.ConnectStandalone",
                 "worker.properties", "outbox-connector.json"],
                env=os.environ | self._env, cwd=self.directory, stdout=log, stderr=log,
            )  # fmt: skip

    def stop(self) -> None:
        """As an operator does; what is in flight is confirmed before."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            finally:
                self._process.kill()
                self._process.wait()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds; fail with the log when the connector has failed."""
        until(lambda: self._has_failed or condition(), timeout=PATIENCE)
        assert not self._has_failed, self._log.read_text()[-4000:]

    @property
    def _has_failed(self) -> bool:
        assert self._process is not None
        said = self._log.read_text(errors="replace")
        return self._process.poll() is not None or any(text in said for text in _FAILED)


def _variables(database_url: str) -> dict[str, str]:
    url = urlsplit(database_url)
    return {
        "PGHOST": str(url.hostname),
        "PGPORT": str(url.port),
        "PGUSER": str(url.username),
        "PGPASSWORD": str(url.password),
        "PGDATABASE": url.path.strip("/"),
    }
