"""Read records that kafka-python cannot: a header's name that is not UTF-8, and broken batches.

kafka-python gives up a whole batch for one such name, and a partition for one such batch. Here the
record is read and marked, and the error about a broken batch names the batch's offset.
"""

from collections.abc import Iterator
from typing import Any

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords


class UnreadableBatch(Exception):  # noqa: N818 - states the fact
    """Raised in the place of any error that a batch made kafka-python raise, which is its cause.

    Nothing of the partition can be read behind the batch.

    Attributes:
        place: the partition.
        offset: where the batch begins.
    """

    def __init__(self, place: TopicPartition, offset: int) -> None:
        super().__init__(f"{place.topic}/{place.partition}/{offset}")
        self.place = place
        self.offset = offset


class NotUtf8(str):
    r"""A header's name that is not UTF-8; the bytes that are not are written as in `\xff`."""

    __slots__ = ()


class TolerantRecords(Fetcher.PartitionRecords):
    """Hold the records of one partition in one answer of the broker.

    A consumer's fetcher is given this class as its `PartitionRecords`.
    """

    def _unpack_records(
        self, tp: TopicPartition, records: MemoryRecords, *deserializers: Any
    ) -> Iterator[ConsumerRecord]:
        try:
            yield from super()._unpack_records(tp, _Batches(records), *deserializers)
        except Exception as error:
            # Otherwise the fetcher would ask this iterator, which has ended, for more without end.
            self.drain()
            raise UnreadableBatch(tp, self.next_fetch_offset) from error


class _Batches:
    """Hand out batches that read any header's name."""

    def __init__(self, records: MemoryRecords) -> None:
        self._records = records

    def next_batch(self) -> object:
        batch = self._records.next_batch()
        if type(batch) is DefaultRecordBatch:
            batch.__class__ = _TolerantBatch
        return batch


class _TolerantBatch(DefaultRecordBatch):
    __slots__ = ()

    def _read_msg(self) -> DefaultRecord:
        at = self._pos
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            self._pos = at
            self._buffer = _LenientBytes(self._buffer)
            return super()._read_msg()


class _LenientBytes(bytearray):
    """Hold bytes of which every slice can be decoded."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _LenientBytes(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        try:
            return super().decode(encoding, errors)
        except UnicodeDecodeError:
            return NotUtf8(super().decode(encoding, "backslashreplace"))
