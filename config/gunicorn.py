"""Configure gunicorn (`gunicorn -c python:config.gunicorn`); docs/deploy.md explains the values."""

import os
import signal
from typing import Any

from saga_runtime.processes import on_orphaned

wsgi_app = "config.wsgi"
bind = os.environ.get("BIND", "127.0.0.1:8000")
worker_class = "config.serving.gunicorn_worker.BufferedWorker"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = int(os.environ.get("WEB_THREADS", "8"))
timeout = 60  # a worker whose loop does not turn for so long is replaced
graceful_timeout = 30
backlog = 2048
max_requests = 0
control_socket_disable = True
accesslog = None
errorlog = "-"
loglevel = "warning"

_SUPERVISED = bool(os.environ.get("SUPERVISED"))


def when_ready(_server: Any) -> None:
    """Leave Ctrl-C to `manage.py up`, and stop when its process is gone.

    Ctrl-C reaches every process of the terminal, but only SIGTERM lets requests finish.
    """
    if _SUPERVISED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        on_orphaned(lambda: os.kill(os.getpid(), signal.SIGTERM))


def post_worker_init(_worker: Any) -> None:
    """Leave Ctrl-C to `manage.py up`, in each worker."""
    if _SUPERVISED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
