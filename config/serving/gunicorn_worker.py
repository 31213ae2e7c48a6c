"""Serve inside gunicorn: gunicorn keeps the processes, our own server serves in each.

gunicorn's threaded worker gives a thread to a connection whose request is still coming in, so a few
slow clients hold all threads. Here a thread is taken once the request has arrived.
"""

import os
from types import FrameType
from typing import Any

from gunicorn.workers.base import Worker

from config.serving.webserver import Server


class BufferedWorker(Worker):
    """Serve on gunicorn's sockets until gunicorn says stop, or is gone."""

    _server: Server | None = None

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn of options that have no effect with this worker.

        Raises:
            RuntimeError: TLS is asked for, which this worker does not speak.
        """
        if cfg.is_ssl:
            raise RuntimeError("TLS ends at the proxy in front: leave out certfile and keyfile")
        if cfg.max_requests or cfg.accesslog:
            log.warning("max_requests and accesslog do nothing with this worker class")

    def run(self) -> None:
        """Serve; called in the worker's process, once the application is loaded."""
        # Duplicates: gunicorn closes its own sockets in the middle of a reload.
        sockets = [each.sock.dup() for each in self.sockets]
        server = self._server = Server(sockets, self.wsgi, threads=self.cfg.threads)
        while self.alive and self.ppid == os.getppid():
            self.notify()
            server.run_once()
        self._server = None  # another SIGTERM must not wake a closed server
        server.stop(within=self.cfg.graceful_timeout, alive=self.notify)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take SIGTERM: stop at once, not when the next client comes."""
        super().handle_exit(sig, frame)
        if self._server is not None:
            self._server.wake()
