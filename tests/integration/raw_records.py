"""Records as a foreign producer may write them, through kafka-python's own producer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from kafka import KafkaProducer

CODECS = (None, "gzip", "snappy", "lz4", "zstd")


class RawName(str):  # noqa: SLOT000 - it has one attribute
    """A header's name as bytes, which need not be UTF-8."""

    raw: bytes

    def __new__(cls, raw: bytes) -> "RawName":
        made = super().__new__(cls, repr(raw))
        made.raw = raw
        return made

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002
        return self.raw


class RawRecord(NamedTuple):
    """`timestamp` in milliseconds; None is now."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    timestamp: int | None = None


@contextmanager
def raw_producer(url: str, **options: Any) -> Iterator[KafkaProducer]:
    """`url`: kafka://host:port."""
    servers = url.removeprefix("kafka://").partition("?")[0]
    producer = KafkaProducer(bootstrap_servers=servers.split(","), **options)
    try:
        yield producer
    finally:
        producer.close(timeout=10)


def send_raw(producer: KafkaProducer, topic: str, record: RawRecord, **options: Any) -> Any:
    """Returns kafka-python's future of the record's place."""
    headers: Any = [(RawName(name), value) for name, value in record.headers]
    return producer.send(
        topic,
        key=record.key,
        value=record.value,
        headers=headers,
        timestamp_ms=record.timestamp,
        **options,
    )
