import socket as _socket
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.task import ThreadedTaskDispatcher

class BaseWSGIServer(wasyncore.dispatcher):
    active_channels: dict[int, Any]
    channel_class: type[HTTPChannel]
    def __init__(
        self,
        application: Any,
        map: dict[int, Any] | None = ...,
        *,
        _sock: _socket.socket | None = ...,
        dispatcher: ThreadedTaskDispatcher | None = ...,
        adj: Adjustments | None = ...,
        sockinfo: tuple[Any, ...] | None = ...,
        bind_socket: bool = ...,
    ) -> None: ...
    def handle_accept(self) -> None: ...
    def maintenance(self, now: float) -> None: ...
    def pull_trigger(self) -> None: ...

class TcpWSGIServer(BaseWSGIServer): ...
class UnixWSGIServer(BaseWSGIServer): ...
