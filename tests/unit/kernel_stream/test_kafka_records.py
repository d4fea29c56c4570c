"""Records are delivered lean, with all that a task reads of them."""

import asyncio
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchError, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder, _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords
from everloop_kernel.kafka_names import ReadableRecords
from everloop_kernel.kafka_records import Record, deliver_records

AT = TopicPartition("t", 3)
HEADERS = [("a", b"1"), ("none", None), ("a", b"\xff")]


def fetched() -> PartitionRecords:
    """Two records in one batch, as aiokafka holds them after a fetch."""
    builder = DefaultRecordBatchBuilder(
        2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=1000
    )
    builder.append(0, 1234, b"k", b"v", HEADERS)
    builder.append(1, 1235, None, None, [])
    return PartitionRecords(
        AT, MemoryRecords(bytes(builder.build())), None, 0, None, None, check_crcs=True,
        isolation_level=READ_COMMITTED,
    )  # fmt: skip


class Fetcher:
    """aiokafka's fetcher as far as a fetch goes: what came lies in `_records`."""

    def __init__(self) -> None:
        self._records: dict[TopicPartition, Any] = {}

    async def _proc_fetch_request(self, answer: dict[TopicPartition, Any]) -> bool:
        self._records.update(answer)
        return bool(answer)


def delivered(answer: dict[TopicPartition, Any]) -> Fetcher:
    fetcher = Fetcher()
    deliver_records(SimpleNamespace(_fetcher=fetcher))
    assert asyncio.run(fetcher._proc_fetch_request(answer)) == bool(answer)
    return fetcher


def test_a_record_keeps_what_tasks_read_of_it() -> None:
    """An upgrade of aiokafka that unpacks in another way must fail here, not be slow or lose headers."""
    fetcher = delivered({AT: SimpleNamespace(_partition_records=fetched())})
    first, second = fetcher._records[AT]._partition_records
    assert first == Record("t", 3, 0, 1234, b"k", b"v", HEADERS)
    assert second == Record("t", 3, 1, 1235, None, None, [])
    for name in Record.__struct_fields__:
        before = getattr(next(fetched()), name)
        assert (tuple(before) if name == "headers" else before) == (
            tuple(first.headers) if name == "headers" else getattr(first, name)
        )
    assert isinstance(next(fetched()), ConsumerRecord)


def test_an_error_in_the_queue_is_left_alone() -> None:
    """A fetch error is raised by the next poll; nothing may trip over it before."""
    error = FetchError(error=RuntimeError("too large"), backoff=0)
    assert delivered({AT: error})._records == {AT: error}


class RawName(str):
    """A header's name of any bytes, as the builder in Python takes it."""

    __slots__ = ()

    def encode(self, *_: str, **__: str) -> bytes:
        return b"\xffname"


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_a_header_name_that_is_not_utf8_stops_nobody(codec: int) -> None:
    """One such record, from anybody who may write to a topic, would end its consumers at each start."""
    good = fetched_bytes([(b"k", b"before", HEADERS)], DefaultRecordBatchBuilder, codec)
    odd = fetched_bytes(
        [(b"k", b"v", HEADERS), (None, b"odd", [(RawName("x"), None)]), (None, None, [])],
        _DefaultRecordBatchBuilderPy, codec,
    )  # fmt: skip
    records = [record for batch in batches(good + odd + good) for record in batch]
    assert [record.value for record in records] == [b"before", b"v", b"odd", None, b"before"]
    assert list(records[1].headers) == HEADERS
    assert records[2].headers == [("\\xffname", None)]
    assert (records[1].timestamp, records[3].timestamp, records[3].offset) == (1000, 1002, 2)


def fetched_bytes(records: Sequence[Any], builder: Any, codec: int) -> bytes:
    """One batch as it comes from the broker."""
    made = builder(2, codec, 0, -1, -1, 0, 1000)
    for number, (key, value, headers) in enumerate(records):
        made.append(number, 1000 + number, key, value, headers)
    return bytes(made.build())


def batches(data: bytes) -> Iterator[Any]:
    read = ReadableRecords(data)
    while read.has_next():
        batch = read.next_batch()
        assert batch.validate_crc()
        assert not batch.is_control_batch
        yield batch
