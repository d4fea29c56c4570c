"""Records are delivered lean, with all that a task reads of them."""

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchError, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
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
