"""One transaction of one input partition: results, dead letters and the input's offset, or nothing."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber, ProducerFenced

from everloop_kernel.errors import Fenced, PermanentError
from everloop_kernel.kafka import close_quietly, transactional_producer
from everloop_kernel.settings import KafkaSettings

__all__ = ["Output", "PartitionWriter"]

log = logging.getLogger(__name__)

Headers = Sequence[tuple[str, bytes]]
_RECORDS_BETWEEN_PAUSES = 200


class Output(NamedTuple):
    """A record to publish. The partition is given, never left to a client's hash."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class PartitionWriter:
    """The transactional producer that belongs to one input partition of one group.

    Opening it fences the partition's previous owner and ends that owner's open transaction.
    """

    def __init__(self, kafka: KafkaSettings, group: str, partition: TopicPartition) -> None:
        self._kafka = kafka
        self._group = group
        self._partition = partition
        self._producer: AIOKafkaProducer | None = None

    @property
    def is_open(self) -> bool:
        """Whether this member holds the partition's producer."""
        return self._producer is not None

    async def open(self) -> None:
        """Take the partition over from whoever wrote for it before."""
        identity = f"{self._group}-{self._partition.topic}-{self._partition.partition}"
        producer = transactional_producer(self._kafka, identity)
        try:
            await producer.start()
        except BaseException:
            await close_quietly(producer)
            raise
        self._producer = producer

    async def close(self) -> None:
        """Give the producer up; not while a transaction is open (that hangs a member in a rebalance)."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_quietly(producer)

    async def commit(
        self,
        outputs: Sequence[Output],
        position: int | None,
        metadata: str,
        *,
        traceparent: bytes | None = None,
        untraced: Sequence[Output] = (),
    ) -> None:
        """Publish the outputs and commit `position` as the group's next offset, all or nothing.

        Without a position only the outputs are published, all of them or none.
        `traceparent` is added to the headers of `outputs`, not to those of `untraced`.

        Raises:
            Fenced: another member owns the partition, or the broker has lost track of this producer's
                sequence (aiokafka #1017: it stays stuck). The process must exit.
            PermanentError: a record is larger than its topic takes.
        """
        producer = self._producer
        if producer is None:
            raise Fenced(f"the producer of {self._partition} is not open")
        try:
            await self._transact(producer, [(outputs, traceparent), (untraced, None)], position, metadata)
        except BaseException as error:
            await self._abort(producer)
            raise _classified(error, self._partition) from error

    async def _transact(
        self,
        producer: AIOKafkaProducer,
        published: Iterable[tuple[Sequence[Output], bytes | None]],
        position: int | None,
        metadata: str,
    ) -> None:
        await producer.begin_transaction()
        _quieten(producer)
        delivered = [
            future for outputs, trace in published for future in await _send_all(producer, outputs, trace)
        ]
        if position is not None:
            offsets = {self._partition: OffsetAndMetadata(position, metadata)}
            await producer.send_offsets_to_transaction(offsets, self._group)
        # aiokafka commits even when a batch of the transaction has failed: look at each before the commit
        for result in await asyncio.gather(*delivered, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        await producer.commit_transaction()

    async def _abort(self, producer: AIOKafkaProducer) -> None:
        """End the transaction, so that readers need not wait for its timeout, and give the producer up."""
        manager = producer._txn_manager  # noqa: SLF001  (no public way to ask whether a transaction is open)
        try:
            if not manager.is_fatal_error() and manager.is_in_transaction():
                async with asyncio.timeout(5):
                    await producer.abort_transaction()
        except (KafkaError, TimeoutError, AssertionError) as error:
            log.warning(
                "a transaction could not be aborted; it ends by timeout", extra={"error": repr(error)}
            )
        finally:
            _quieten(producer)
            await self.close()
            _quieten(producer)


async def _send_all(
    producer: AIOKafkaProducer, outputs: Iterable[Output], traceparent: bytes | None
) -> list[asyncio.Future[Any]]:
    """Send by whole batches: 2 µs a record instead of 23."""
    by_partition: defaultdict[tuple[str, int], list[Output]] = defaultdict(list)
    for output in outputs:
        by_partition[output.topic, output.partition].append(output)
    trace = None if traceparent is None else ("traceparent", traceparent)
    delivered: list[asyncio.Future[Any]] = []
    for (topic, partition), records in by_partition.items():
        for batch in _batches(producer, records, trace):
            if batch is None:
                await asyncio.sleep(0)
                continue
            delivered.append(await producer.send_batch(batch, topic, partition=partition))
            delivered[-1].add_done_callback(_seen)
    return delivered


def _quieten(producer: AIOKafkaProducer) -> None:
    """A failed transaction leaves its error in a future that nobody awaits; a fatal one in a second."""
    manager = producer._txn_manager  # noqa: SLF001
    if ended := manager.wait_for_transaction_end():
        ended.add_done_callback(_seen)


def _seen(done: asyncio.Future[Any]) -> None:
    """The failure is raised elsewhere; without this asyncio would print its traceback as well."""
    if not done.cancelled():
        done.exception()


def _batches(
    producer: AIOKafkaProducer, records: Sequence[Output], trace: tuple[str, bytes] | None
) -> Iterable[Any]:
    """Fill batch after batch; the timestamp is the wall clock, since retention goes by it.

    None comes now and then between them: filling 2,000 at once would hold up everybody else for 5 ms.
    """
    now = int(time.time() * 1000)
    batch = producer.create_batch()
    for number, (_, _, key, value, headers) in enumerate(records, 1):
        traced = [*headers, trace] if trace else headers if type(headers) is list else list(headers)
        if batch.append(timestamp=now, key=key, value=value, headers=traced) is None:
            yield batch
            batch = producer.create_batch()
            batch.append(timestamp=now, key=key, value=value, headers=traced)
        if not number % _RECORDS_BETWEEN_PAUSES:
            yield None
    yield batch


_TOO_LARGE = ("MessageSizeTooLarge", "RecordListTooLarge", "RecordTooLarge")


def _classified(error: BaseException, partition: TopicPartition) -> BaseException:
    """What an aiokafka error means for the process."""
    if isinstance(error, ProducerFenced | OutOfOrderSequenceNumber):
        return Fenced(f"another member writes for {partition.topic}-{partition.partition} now ({error!r})")
    if type(error).__name__.startswith(_TOO_LARGE):
        return PermanentError("output-too-large", f"a result is larger than its topic takes: {error}")
    return error
