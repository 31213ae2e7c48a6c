from types import FrameType
from typing import Any

class Worker:
    alive: bool
    ppid: int
    cfg: Any
    sockets: list[Any]
    wsgi: Any
    def notify(self) -> None: ...
    def handle_exit(self, sig: int, frame: FrameType | None) -> None: ...
