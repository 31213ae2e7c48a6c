class Error:
    code: int
    body: str
    def __init__(self, body: str) -> None: ...
