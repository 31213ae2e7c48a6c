"""Keep records that could not become sagas: each once, however often it is delivered."""

import base64
import hashlib
from collections.abc import Iterable

from brokers import Record
from saga_runtime.text import bounded, storable
from sagas.models import RefusedCommand


def refusal(record: Record, reason: str) -> RefusedCommand:
    """Make the row that keeps a record, with the reason why it was refused."""
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
    """Store rows; those that are there already stay as they are."""
    RefusedCommand.objects.bulk_create(refused, ignore_conflicts=True)


def content_hash(record: Record) -> str:
    """Return a hash that tells a record from another one at the same place.

    A topic may be made again, and then its offsets begin anew.

    Returns:
        SHA-256 of key, value and headers, each behind its length, in 64 hexadecimal digits.
    """
    found = hashlib.sha256()
    parts: list[bytes | None] = [record.key, record.value]
    for name, value in record.headers:
        parts += [name.encode(errors="surrogatepass"), value]
    for part in parts:
        found.update(b"-" if part is None else b"%d:" % len(part))
        found.update(part or b"")
    return found.hexdigest()
