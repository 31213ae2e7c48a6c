import threading
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask

class HTTPChannel(wasyncore.dispatcher):
    parser_class: type[HTTPRequestParser]
    error_task_class: type[ErrorTask]
    server: Any
    request: Any
    requests: list[Any]
    requests_lock: threading.Lock
    creation_time: float
    last_activity: float
    will_close: bool
    close_when_flushed: bool
    total_outbufs_len: int
    def readable(self) -> bool: ...
    def received(self, data: bytes) -> bool: ...
    def handle_read(self) -> None: ...
    def handle_write(self) -> None: ...
    def service(self) -> None: ...
    def handle_close(self) -> None: ...
    def _flush_some(self, do_close: bool = ...) -> bool: ...
    def _flush_exception(
        self, flush: Callable[..., bool] | None, do_close: bool = ...
    ) -> tuple[bool, bool]: ...
