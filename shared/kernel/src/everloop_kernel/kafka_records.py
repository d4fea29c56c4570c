"""Records as the stream's consumer delivers them: what is read of a `ConsumerRecord`, and quickly made.

aiokafka fills a dataclass of eleven fields for each record, which costs more than to read the record itself.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher as aiokafka_fetcher

from everloop_kernel.kafka_names import ReadableRecords

__all__ = ["Record", "deliver_records"]


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record of a partition; the names are those of aiokafka's `ConsumerRecord`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def deliver_records(consumer: AIOKafkaConsumer) -> None:
    """Let a started consumer deliver `Record`; nothing public says what it makes of what it has fetched.

    What a fetch leaves in the queue has not been taken apart yet: that is done when it is delivered. The
    batches are read by `ReadableRecords`, in every consumer of the process: aiokafka has its reader by name.
    """
    aiokafka_fetcher.MemoryRecords = ReadableRecords
    fetcher = consumer._fetcher  # noqa: SLF001
    fetch = fetcher._proc_fetch_request  # noqa: SLF001

    async def fetch_records(*request: Any) -> bool:
        has_new: bool = await fetch(*request)
        for result in fetcher._records.values():  # noqa: SLF001
            unpacked = getattr(result, "_partition_records", None)  # an error has none
            if unpacked is not None:
                unpacked._consumer_record = _record  # noqa: SLF001
        return has_new

    fetcher._proc_fetch_request = fetch_records  # noqa: SLF001


def _record(at: TopicPartition, read: Any) -> Record:
    return Record(at[0], at[1], read.offset, read.timestamp, read.key, read.value, read.headers)
