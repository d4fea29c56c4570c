"""A task that is brought up to a new generation beside its live records, on a real Kafka."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from everloop_kernel.errors import PermanentError
from everloop_kernel.exactly_once import check
from everloop_kernel.stream import Output, RestoreFrom, Step, go_on
from everloop_kernel.stream_writer import PartitionWriter

pytestmark = pytest.mark.integration

VALUES = [f"v{number}" for number in range(300)]
State = dict[str, tuple[int, int]]
"""By generation: how many records were counted, and the input offset after the last one."""


class Numbering:
    """Publishes each record with its running number, once for each generation; restored from its output."""

    def __init__(self, stream: Any, partition: TopicPartition) -> None:
        self._output = TopicPartition(stream.output, partition.partition)
        self._wanted = self._published = stream.generation
        self._state: State = {}
        self._behind = False

    @property
    def generation(self) -> str:
        return f"{self._published}>{self._wanted}@{self._position}" if self._behind else self._wanted

    @property
    def _position(self) -> int:
        return self._state.get(self._wanted, (0, 0))[1]

    def resume(self, generation: str | None) -> None:
        self._published = (generation or self._wanted).partition(">")[0]

    def adopt(self, running: Any) -> bool:
        self._published, self._state = running._published, running._state
        return True

    def restore_from(self) -> Sequence[RestoreFrom]:
        return [RestoreFrom(*self._output, always=True)]

    def restore(self, records: Sequence[ConsumerRecord]) -> None:
        for record in records:
            generation, _, rest = record.value.decode().partition(":")
            count, _, offset = rest.partition("#")[2].partition("@")
            self._state[generation] = int(count), int(offset) + 1

    def begin(self, beginning: int, committed: int | None) -> int:
        return go_on(beginning, committed)

    def catch_up_from(self, position: int) -> int | None:
        self._behind = self._published != self._wanted
        return min(position, self._position) if self._behind else None

    def derive(self, records: Sequence[ConsumerRecord]) -> Step[Any]:
        return self._numbered(self._published, records)

    def derive_past(self, records: Sequence[ConsumerRecord], reached: int | None) -> Step[Any]:
        step = self._numbered(self._wanted, [each for each in records if each.offset >= self._position])
        _, position = step.state[self._wanted]
        generation = self._wanted if reached is not None else f"{self._published}>{self._wanted}@{position}"
        return Step(step.outputs, (), (step.state, reached is not None), generation)

    def apply(self, state: tuple[State, bool]) -> None:
        (self._state, reached) = state if isinstance(state, tuple) else (state, False)
        if reached:
            self._published, self._behind = self._wanted, False

    def _numbered(self, generation: str, records: Sequence[ConsumerRecord]) -> Step[Any]:
        count, position = self._state.get(generation, (0, 0))
        outputs = []
        for record in records:
            if record.value.startswith(f"bomb{generation}".encode()):
                raise PermanentError("bomb", "the whole batch fails")
            count, position = count + 1, record.offset + 1
            value = f"{generation}:{record.value.decode()}#{count}@{record.offset}".encode()
            outputs.append(Output(*self._output, record.key, value))
        return Step(outputs, (), {**self._state, generation: (count, position)})


@pytest.fixture
def numbering(stream):
    """A processor of small, slow slices, whose tasks take the stream's generation."""

    async def open_task(partition: TopicPartition) -> Numbering:
        return Numbering(stream, partition)

    def make(**options: Any) -> Any:
        return stream.processor(**{"open_task": open_task, "max_records": 10, "replay_share": 0.1, **options})

    return make


async def came_out(stream, generation: str) -> list[str]:
    """`value#number` of each output of a generation."""
    mine = [value for value in await stream.numbered() if value.startswith(f"{generation}:")]
    return [value.partition(":")[2].partition("@")[0] for value in mine]


async def _are(stream, generation: str, count: int) -> bool:
    return len(await came_out(stream, generation)) == count


async def _began(stream, generation: str) -> bool:
    return len(await came_out(stream, generation)) > 0


async def test_live_records_go_on_beside_the_replay(stream, numbering, running, until) -> None:
    """A change must not stop the stream: what comes meanwhile comes out before the past is through."""
    processor = numbering()
    await stream.send(VALUES[:200])
    async with running(processor):
        assert await until(lambda: _are(stream, "1", 200))
        stream.generation = "2"
        processor.reopen(stream.topic)
        assert await until(lambda: _began(stream, "2"))
        await stream.send(VALUES[200:250])
        assert await until(lambda: _are(stream, "1", 250))
        assert not await _are(stream, "2", 250), "live records came out last: they have waited"
        assert await until(lambda: _are(stream, "2", 250), 60)
        assert await until(lambda: not any(lane._replay.is_running for lane in processor._lanes.values()))
        await stream.send(VALUES[250:])
        assert await until(lambda: _are(stream, "2", 300))
    assert sorted(await came_out(stream, "1")) == sorted(_numbered(stream, 200, 250))
    assert sorted(await came_out(stream, "2")) == sorted(_numbered(stream, 200, 250, 300))


async def test_another_member_goes_on_with_a_replay(stream, numbering, running, until) -> None:
    """Scaling out in mid-replay must neither begin it again nor leave a part out."""
    first = numbering()
    await stream.send(VALUES[:300])
    async with running(first):
        assert await until(lambda: _are(stream, "1", 300))
        stream.generation = "2"
        first.reopen(stream.topic)
        assert await until(lambda: _began(stream, "2"))
        second = numbering(replay_share=1)
        async with running(second):
            assert await until(lambda: len(first._assigned) == len(second._assigned or ()) == 1, 30)
            assert await until(lambda: _are(stream, "2", 300), 60)
    assert sorted(await came_out(stream, "2")) == sorted(_numbered(stream, 300))


async def test_a_record_that_fails_in_the_past_is_set_aside_alone(stream, numbering, running, until) -> None:
    """What streaming would have set aside is set aside; its neighbours come out."""
    values = [*VALUES[:40], "bomb2", *VALUES[40:80]]
    processor = numbering(replay_share=1)
    await stream.send(values)
    async with running(processor):
        assert await until(lambda: _are(stream, "1", 81))
        stream.generation = "2"
        processor.reopen(stream.topic)
        assert await until(lambda: _are(stream, "2", 80), 30)
        assert await until(lambda: not any(lane._replay.is_running for lane in processor._lanes.values()))
    verdict = check(
        values, [one.partition("#")[0] for one in await came_out(stream, "2")],
        poison={"bomb2"}, dead=await stream.dead(),
    )  # fmt: skip
    assert verdict.ok, verdict


@pytest.fixture(params=[True, False], ids=["after its commit", "before its commit"])
def lost(request, monkeypatch):
    """Two transactions during a replay whose commit is not heard of; what is left of them to fail."""
    commit, failures = PartitionWriter.commit, iter([False, True, False, True])

    async def failing(self: PartitionWriter, *arguments: Any, **options: Any) -> None:
        fails = arguments[2].startswith("1>2") and next(failures, False)
        if request.param or not fails:
            await commit(self, *arguments, **options)
        if fails:
            raise OSError("the connection is lost")

    monkeypatch.setattr(PartitionWriter, "commit", failing)
    return failures


async def test_a_slice_whose_fate_is_unknown(lost, stream, numbering, running, until) -> None:
    """A connection lost at the commit: only what the broker holds says whether the slice must come again."""
    processor = numbering(replay_share=1)
    await stream.send(VALUES[:200])
    async with running(processor):
        assert await until(lambda: _are(stream, "1", 200))
        stream.generation = "2"
        processor.reopen(stream.topic)
        assert await until(lambda: _are(stream, "2", 200), 30)
        await asyncio.sleep(0.5)  # time for what should not come
    assert next(lost, None) is None, "nothing has failed"
    assert sorted(await came_out(stream, "2")) == sorted(_numbered(stream, 200))


def _numbered(stream, *ends: int) -> list[str]:
    """What comes out when the values up to each end were sent at once: each partition counts its own."""
    parts: list[list[str]] = [[] for _ in range(stream.partitions)]
    first = 0
    for end in ends:
        for number, value in enumerate(VALUES[first:end]):
            parts[number % stream.partitions].append(value)
        first = end
    return [f"{value}#{count}" for part in parts for count, value in enumerate(part, start=1)]
