"""The exactly-once checker must see it when one of the stream processor's fixes is taken out.

Each test runs the same scenario twice: as the kernel does it, and with one fix removed.
"""

import asyncio
from collections import Counter
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from everloop_kernel import stream as stream_module
from everloop_kernel.exactly_once import Verdict, check
from everloop_kernel.stream import StreamProcessor
from everloop_kernel.stream_batches import Batches
from everloop_kernel.stream_lane import Lane
from everloop_kernel.stream_writer import Output, PartitionWriter

pytestmark = pytest.mark.integration

VALUES = [f"v{number}" for number in range(200)]


def _verdict(stream, numbered: list[str]) -> Verdict:
    """Exactly once, and counted exactly once: the running numbers are part of the identity."""
    return check(stream.numbering(VALUES), numbered)


async def _settled(stream, until) -> list[str]:
    """What came out: all of it, or what there is when nothing more comes."""
    await until(lambda: _at_least(stream, len(VALUES)), seconds=5)
    await asyncio.sleep(0.5)
    return await stream.numbered()


async def _at_least(stream, count: int) -> bool:
    return len(await stream.numbered()) >= count


# Trap 16: records arrive before the partition is ready


def _skip_records_that_come_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    put = Lane.put

    def put_when_open(self: Lane, records: Any) -> None:
        if self.is_open:
            put(self, records)

    def start_here(self: Lane, task: Any, position: int) -> None:
        self._task, self.position = task, position

    monkeypatch.setattr(Lane, "put", put_when_open)
    monkeypatch.setattr(Lane, "_start_at", start_here)


@pytest.mark.parametrize("fixed", [True, False], ids=["as it is", "trap 16"])
async def test_records_that_arrive_before_the_partition_is_ready(
    fixed, stream, running, until, monkeypatch
) -> None:
    """Opening takes a while; what is delivered meanwhile must not be skipped."""
    if not fixed:
        _skip_records_that_come_too_early(monkeypatch)
    await stream.send(VALUES)
    async with running(stream.processor()):
        numbered = await _settled(stream, until)
    verdict = _verdict(stream, numbered)
    assert verdict.ok if fixed else verdict.lost, verdict


# Trap 17: the committed offset is read at the assignment, before the previous owner is fenced


def _let_the_previous_owner_commit_just_before_it_is_fenced(stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """It handles ten records of the partition after this member has read the committed offset."""
    opened, commit = PartitionWriter.open, PartitionWriter.commit
    served: set[int] = set()

    async def open_late(self: PartitionWriter) -> None:
        number = self._partition.partition
        if number not in served:
            served.add(number)
            await asyncio.sleep(0.5)  # the consumer has its position and its first records by now
            previous = PartitionWriter(self._kafka, self._group, self._partition)
            await opened(previous)
            mine = VALUES[number :: stream.partitions][:10]
            values = [f"{value}#{count}".encode() for count, value in enumerate(mine, start=1)]
            await commit(previous, [Output(stream.output, number, b"k", each) for each in values], 10, "1")
        await opened(self)

    monkeypatch.setattr(PartitionWriter, "open", open_late)


@pytest.mark.parametrize("fixed", [True, False], ids=["as it is", "trap 17"])
async def test_an_offset_that_moved_before_the_fence(fixed, stream, running, until, monkeypatch) -> None:
    """What the previous owner committed with its last breath must not be handled again."""
    if not fixed:

        def start_here(self: Lane, task: Any, position: int) -> None:
            self._task, self.position = task, position

        monkeypatch.setattr(Lane, "_start_at", start_here)
    _let_the_previous_owner_commit_just_before_it_is_fenced(stream, monkeypatch)
    await stream.send(VALUES)
    async with running(stream.processor()):
        numbered = await _settled(stream, until)
    verdict = check(VALUES, [each.partition("#")[0] for each in numbered])
    assert verdict.ok if fixed else verdict.doubled, verdict
    if fixed:
        assert _verdict(stream, numbered).ok


# Trap 20: a producer is stopped in on_partitions_revoked while its transaction is open


class _Revoking(StreamProcessor):
    """Says when a rebalance begins."""

    began = asyncio.Event()

    async def revoked(self) -> None:
        if self._lanes:
            self.began.set()
        await super().revoked()


class _StopsProducersAtOnce(_Revoking):
    async def revoked(self) -> None:
        for lane in list(self._lanes.values()):
            lane.hold()
            await lane.close()
            self.began.set()


def _transactions_outlast_the_revocation(
    began: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> asyncio.Event:
    """Each partition's first transaction is still open when the rebalance has begun."""
    transact = PartitionWriter._transact
    in_flight, slowed = asyncio.Event(), set()

    async def slowly(self: PartitionWriter, producer: Any, *rest: Any) -> None:
        send_offsets = producer.send_offsets_to_transaction

        async def pause(*arguments: Any) -> None:
            if self._partition not in slowed:
                slowed.add(self._partition)
                in_flight.set()
                await began.wait()
                await asyncio.sleep(0.3)
            await send_offsets(*arguments)

        producer.send_offsets_to_transaction = pause
        await transact(self, producer, *rest)
        producer.send_offsets_to_transaction = send_offsets

    monkeypatch.setattr(PartitionWriter, "_transact", slowly)
    return in_flight


@pytest.mark.parametrize("fixed", [True, False], ids=["as it is", "trap 20"])
async def test_a_rebalance_while_a_transaction_is_open(fixed, stream, running, until, monkeypatch) -> None:
    """A second member joins in the middle of a transaction: both must go on."""
    kind = _Revoking if fixed else _StopsProducersAtOnce
    monkeypatch.setattr(kind, "began", asyncio.Event())
    monkeypatch.setattr(stream_module, "_DRAIN_SECONDS", 1.5)
    in_flight = _transactions_outlast_the_revocation(kind.began, monkeypatch)
    first, second = stream.processor(kind, max_records=1000), stream.processor(max_records=1000)
    await stream.send(VALUES)
    async with running(first):
        await asyncio.wait_for(in_flight.wait(), 10)
        async with running(second):
            numbered = await _settled(stream, until)
            hung = [lane for lane in first._lanes.values() if lane._transaction.locked()]
            shared = await until(lambda: _shared(first, second), seconds=1)
    verdict = _verdict(stream, numbered)
    if fixed:
        assert verdict.ok, verdict
        assert shared
        assert not hung
    else:
        assert verdict.lost or hung, "the checker saw nothing wrong"


def _shared(first: StreamProcessor, second: StreamProcessor) -> bool:
    return len(first._assigned or ()) == len(second._assigned or ()) == 1


# State is applied before the commit


class _FailingOnce:
    """The second commit of each partition fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        transact = PartitionWriter._transact
        commits: Counter[Any] = Counter()

        async def failing(writer: PartitionWriter, producer: Any, *rest: Any) -> None:
            commits[writer._partition] += 1
            if commits[writer._partition] == 2:
                await producer.begin_transaction()
                raise KafkaError("the broker is not in the mood")
            await transact(writer, producer, *rest)

        monkeypatch.setattr(PartitionWriter, "_transact", failing)


@pytest.mark.parametrize("fixed", [True, False], ids=["as it is", "applied before the commit"])
async def test_a_transaction_that_fails_leaves_no_state_behind(
    fixed, stream, running, until, monkeypatch
) -> None:
    """A count that a failed attempt has raised would be wrong for ever after."""
    _FailingOnce(monkeypatch)
    if not fixed:

        async def apply_first(self: Batches, task: Any, records: Any, poison: Any) -> None:
            assert poison is None
            step = task.derive(records)
            task.apply(step.state)
            await self._commit(len(records), step, records[-1].offset + 1, task.generation)

        monkeypatch.setattr(Batches, "_live", apply_first)
    await stream.send(VALUES)
    async with running(stream.processor(max_records=20)):
        numbered = await _settled(stream, until)
    verdict = _verdict(stream, numbered)
    assert verdict.ok if fixed else verdict.lost and verdict.unexpected, verdict


# A batch that failed inside a transaction that commits: aiokafka commits without it


@pytest.mark.parametrize("fixed", [True, False], ids=["as it is", "deliveries not awaited"])
async def test_a_batch_the_broker_refused_must_fail_the_transaction(
    fixed, stream, running, until, monkeypatch
) -> None:
    """aiokafka commits without looking at its batches' errors: the refused part would vanish."""
    if not fixed:

        async def unlooked(self: PartitionWriter, producer: Any, *rest: Any) -> None:
            send_batch = producer.send_batch

            async def forgotten(*arguments: Any, **options: Any) -> asyncio.Future[None]:
                delivered = await send_batch(*arguments, **options)
                delivered.add_done_callback(lambda future: future.exception())
                done = asyncio.get_running_loop().create_future()
                done.set_result(None)
                return done

            producer.send_batch = forgotten
            try:
                await transact(self, producer, *rest)
            finally:
                producer.send_batch = send_batch

        transact = PartitionWriter._transact
        monkeypatch.setattr(PartitionWriter, "_transact", unlooked)
    values = ["a" * 1_500_000, "b"]  # the output takes records of 1 MB
    await stream.send(values)
    async with running(stream.processor()):
        await until(lambda: _dead(stream), seconds=4)
        verdict = check(values, await stream.came_out(), poison={values[0]}, dead=await stream.dead())
    assert verdict.ok if fixed else verdict.not_dead, "the refused record is nowhere"


async def _dead(stream) -> bool:
    return bool(await stream.dead())
