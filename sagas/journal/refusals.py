"""Keep refused records: each once, however often the broker delivers."""

import base64
import hashlib
from collections.abc import Iterable

from brokers import Record
from saga_runtime.text import bounded, storable
from sagas.models import RefusedCommand


def refusal(record: Record, reason: str) -> RefusedCommand:
    """Build the row of a refused record, with the reason."""
    return RefusedCommand(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        content_hash=content_hash(record),
        key=record.key,
        value=record.value,
        headers=[
            [storable(name), base64.b64encode(value).decode()] for name, value in record.headers
        ],
        reason=bounded(reason),
    )


def keep(refused: Iterable[RefusedCommand]) -> None:
    """Store rows; existing rows stay."""
    RefusedCommand.objects.bulk_create(refused, ignore_conflicts=True)


def content_hash(record: Record) -> str:
    """Hash a record's content, to tell apart two records at the same place.

    A topic may be made again, and then the offsets begin anew.

    Returns:
        SHA-256 of key, value and headers, each behind the length, in 64 hexadecimal digits.
    """
    found = hashlib.sha256()
    parts: list[bytes | None] = [record.key, record.value]
    for name, value in record.headers:
        parts += [name.encode(errors="surrogatepass"), value]
    # Behind lengths no two lists of parts join to the same bytes; an absent part is no empty part.
    for part in parts:
        found.update(b"-" if part is None else b"%d:" % len(part))
        found.update(part or b"")
    return found.hexdigest()
