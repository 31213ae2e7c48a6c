from typing import Any

from waitress.adjustments import Adjustments
from waitress.utilities import Error

class ParsingError(Exception): ...

class HTTPRequestParser:
    adj: Adjustments
    headers: dict[str, str]
    header_plus: bytes
    headers_finished: bool
    completed: bool
    chunked: bool
    content_length: int
    body_rcv: Any
    version: str
    error: Error | None
    path: str
    command: str
    def __init__(self, adj: Adjustments) -> None: ...
    def received(self, data: bytes) -> int: ...
    def parse_header(self, header_plus: bytes) -> None: ...
