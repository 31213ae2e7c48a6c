"""Keep the correlation id and trace context of the request or message in a thread or task."""

import logging
import re
import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from saga_runtime.text import visible

_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


@dataclass(frozen=True, slots=True)
class Correlation:
    """Identify a request or message.

    Attributes:
        id: 1 to 128 visible ASCII characters; empty where no id is known.
        traceparent: W3C Trace Context, level 1; empty where no context is known.
    """

    id: str = ""
    traceparent: str = ""


_current: ContextVar[Correlation] = ContextVar("correlation", default=Correlation())  # noqa: B039


def current() -> Correlation:
    """Return the correlation of this thread or task; an empty one where none is set."""
    return _current.get()


@contextmanager
def correlated(correlation: Correlation) -> Iterator[Correlation]:
    """Set the correlation of this thread or task until the block ends."""
    token = _current.set(correlation)
    try:
        yield correlation
    finally:
        _current.reset(token)


def usable(*, id: str, traceparent: str) -> Correlation:  # noqa: A002
    """Build the correlation of a message; an unusable part is left empty."""
    return Correlation(
        id=id if _ID.fullmatch(id) else "",
        traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
    )


def taken_or_made(*, id: str | None, traceparent: str | None) -> Correlation:  # noqa: A002
    """Build the correlation of a request, with a new value for each unusable part."""
    return Correlation(
        id=id if id and _ID.fullmatch(id) else str(uuid.uuid4()),
        traceparent=traceparent
        if traceparent and _TRACEPARENT.fullmatch(traceparent)
        else _new_traceparent(),
    )


def _new_traceparent() -> str:
    digits = secrets.token_hex(24)
    return f"00-{digits[:32]}-{digits[32:]}-01"


class CorrelationFilter(logging.Filter):
    """Put the correlation id on every log record, `-` where there is none."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the record's `correlation_id`; every record passes."""
        if not hasattr(record, "correlation_id"):
            record.correlation_id = visible(current().id) or "-"
        return True
