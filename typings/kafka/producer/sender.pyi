from collections.abc import Callable, Sequence
from threading import Thread

RecordErrors = Sequence[tuple[int, str | None]]
ExceptionOf = Callable[[int], Exception]

class Sender(Thread):
    _record_exceptions_fn: Callable[[Exception, RecordErrors, str | None], ExceptionOf]
    def force_close(self) -> None: ...
