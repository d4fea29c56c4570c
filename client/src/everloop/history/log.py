"""A pipeline's log and its vectors, read from Kafka."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from everloop_features import LogRecord, decode
from everloop_kernel.kafka import close_quietly
from everloop_kernel.kafka_reading import partitions_of, read_to_end, started_reader
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import cloudevents
from everloop_schemas.events import RecordAccepted, VectorComputed
from everloop_schemas.rejected import Rejected
from everloop_schemas.topics import TOPICS

from everloop.errors import EverloopError

__all__ = ["Entry", "Log", "run"]

Entry = tuple[int, LogRecord]
"""A log record with its offset."""

_T = TypeVar("_T")


class Log:
    """One pipeline's log; partitions are read from their first record that Kafka still has."""

    def __init__(self, kafka: KafkaSettings, pipeline: str) -> None:
        self._kafka = kafka
        self._log = TOPICS[RecordAccepted.topic].topic_for(pipeline)
        self._vectors = TOPICS[VectorComputed.topic].topic_for(pipeline)

    async def pages(
        self, partition: int, *, first: int | None = None, below: int | None = None
    ) -> AsyncGenerator[list[Entry], None]:
        """Records in order, from an offset or the beginning, up to the present end or below an offset.

        What the feature service cannot read and puts to the dead letters is left out here as well.
        """
        source = read_to_end(self._kafka, self.partition(partition), start=first)
        async with aclosing(source):
            async for page in source:
                records = [record for record in page if below is None or record.offset < below]
                yield [(record.offset, read) for record in records if (read := _read(record)) is not None]
                if len(records) < len(page):
                    return

    def partition(self, number: int) -> TopicPartition:
        """The topic and partition on Kafka."""
        return TopicPartition(self._log, number)

    async def bounds(self) -> dict[int, tuple[int, int]]:
        """Each partition's first offset (0 unless Kafka has dropped some) and the one after its last."""
        consumer = await started_reader(self._kafka)
        try:
            partitions = await partitions_of(consumer, self._log)
            first = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
        finally:
            await close_quietly(consumer)
        return {each.partition: (first[each], ends[each]) for each in partitions}

    async def first_offsets(self) -> dict[int, int]:
        """Where each partition begins."""
        return {number: first for number, (first, _) in (await self.bounds()).items()}

    async def has_records(self) -> bool:
        """Whether anything was ever logged."""
        return any(end > 0 for _, end in (await self.bounds()).values())

    async def vectors(self, partition: int, observation_id: str) -> list[VectorComputed]:
        """The logged vectors of one observation, oldest first: one a pipeline version, or more."""
        needle = msgspec.json.encode(observation_id)
        found: list[VectorComputed] = []
        async for page in read_to_end(self._kafka, TopicPartition(self._vectors, partition)):
            found += [vector for record in page if (vector := _vector(record, needle)) is not None]
        return [vector for vector in found if vector.id == observation_id]


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end, also where an event loop runs already, as in a notebook.

    Raises EverloopError when Kafka does not answer.
    """
    results: list[_T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if not failures:
        return results[0]
    if isinstance(failures[0], KafkaError | OSError | TimeoutError):
        raise EverloopError(
            f"Kafka does not answer ({type(failures[0]).__name__}).",
            "`everloop up` starts it; one elsewhere is named by EVERLOOP_KAFKA_BOOTSTRAP_SERVERS.",
        ) from failures[0]
    raise failures[0]


def _read(record: ConsumerRecord) -> LogRecord | None:
    """As the feature service reads it: quickly, or by the book."""
    try:
        return decode(record.value or b"")
    except (msgspec.DecodeError, RecursionError):
        read = cloudevents.decode(RecordAccepted, record.value, record.headers)
        return None if isinstance(read, Rejected) else read


def _vector(record: ConsumerRecord, needle: bytes) -> VectorComputed | None:
    if record.value is None or needle not in record.value:
        return None
    read = cloudevents.decode(VectorComputed, record.value, record.headers)
    return None if isinstance(read, Rejected) else read
