"""List the processes of the service: web server, relay and consumers, over a shared broker."""

import os
import sys
from pathlib import Path

from saga_runtime.processes import this_program
from saga_runtime.supervision import Part


def parts(*, host: str, port: int, consumers: int) -> list[list[Part]]:
    """List the processes in groups, in the order of their stops: no new orders first.

    Args:
        host: address to serve.
        port: port to serve.
        consumers: number of consumer processes.
    """
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn"]
    web = [*gunicorn, "--bind", bind, "config.wsgi"]
    relay = [*this_program(), "run_outbox_relay"]
    consumer = [*this_program(), "run_saga_consumer", "--processes", "1"]
    names = ["consumer"] if consumers == 1 else [f"consumer-{n + 1}" for n in range(consumers)]
    return [
        [Part("web", web, environment=_python_path())],
        [Part("relay", relay, ready="relay: ready")],
        [Part(name, consumer, ready="consumer: ready") for name in names],
    ]


def _python_path() -> dict[str, str]:
    """Let gunicorn find our modules from any folder."""
    project = str(Path(__file__).resolve().parents[2])
    return {"PYTHONPATH": os.pathsep.join(filter(None, (project, os.environ.get("PYTHONPATH"))))}
