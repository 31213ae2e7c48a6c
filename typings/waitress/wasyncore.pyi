import socket as _socket
from typing import Any

class dispatcher:
    socket: _socket.socket
    connected: bool
    accepting: bool
    def del_channel(self, map: dict[int, Any] | None = ...) -> None: ...

def loop(
    timeout: float = ...,
    use_poll: bool = ...,
    map: dict[int, Any] | None = ...,
    count: int | None = ...,
) -> None: ...
def close_all(map: dict[int, Any] | None = ..., ignore_all: bool = ...) -> None: ...
