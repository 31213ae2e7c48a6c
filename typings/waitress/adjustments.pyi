from typing import Any

class Adjustments:
    max_request_body_size: int
    max_request_header_size: int
    def __init__(self, **kw: Any) -> None: ...
