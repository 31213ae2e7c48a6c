"""Write log lines without forgeries: control characters of foreign text are written out.

`get_logger` makes a package's own lines safe in every project, under any LOGGING.
`OneLineFormatter` makes every line of a process safe, also lines of libraries.
"""

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from saga_runtime.text import LONGEST_ERROR, cut, one_line_error, visible

_TRACEBACK_INDENT = "    "
_SAFE = (int, float, UUID, type(None))

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class VisibleLogger(_Adapter):
    """Log messages with each argument as one visible line, cut where the line is long."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message; foreign text belongs into its arguments, not into the message."""
        if self.isEnabledFor(level):
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # the caller, not this line
            self.logger.log(level, msg, *map(_written_out, args), **kwargs)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Return message and keywords as they are."""
        return msg, kwargs


def get_logger(name: str) -> VisibleLogger:
    """Return a logger for messages with foreign text in their arguments."""
    return VisibleLogger(logging.getLogger(name), {})


class OneLineFormatter(logging.Formatter):
    """Format a record as one visible line.

    A traceback follows in lines of its own, each indented: no line of a traceback can be taken for
    a record.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the record's line, with control characters written out."""
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return the traceback in indented lines."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        """Return the stack in indented lines."""
        return _indented(super().formatStack(stack_info))


def _written_out(argument: object) -> object:
    if isinstance(argument, _SAFE):
        return argument
    if isinstance(argument, BaseException):
        return one_line_error(argument)
    return cut(visible(str(argument)), LONGEST_ERROR)


def _indented(text: str) -> str:
    return "\n".join(f"{_TRACEBACK_INDENT}{visible(line)}" for line in text.split("\n"))
