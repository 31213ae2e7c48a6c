from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    status: int
    body: Json
    replayed: bool = False


class Refused(Exception):  # noqa: N818 - an answer
    def __init__(self, status: int, kind: str, message: str, **more: object) -> None:
        super().__init__(message)
        error = {"type": kind, "message": message, **more}
        self.answer = Answer(status, {"error": error})
