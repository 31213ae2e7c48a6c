from collections.abc import Iterator
from typing import Any, NamedTuple

from kafka import TopicPartition

class ConsumerRecord(NamedTuple):
    topic: str
    partition: int
    leader_epoch: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: int | None
    serialized_key_size: int
    serialized_value_size: int
    serialized_header_size: int

class Fetcher:
    class PartitionRecords:
        next_fetch_offset: int
        def drain(self) -> None: ...
        def _unpack_records(
            self, tp: TopicPartition, records: Any, *deserializers: Any
        ) -> Iterator[ConsumerRecord]: ...
