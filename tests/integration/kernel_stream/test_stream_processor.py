import asyncio

import pytest
from aiokafka import TopicPartition
from everloop_kernel.admin import ensure_topics, lag
from everloop_kernel.dead_letters import DeadLetterLimitExceeded
from everloop_kernel.exactly_once import check
from everloop_kernel.metrics import HANDLED_RECORDS
from everloop_kernel.settings import PlatformSettings
from everloop_kernel.stream import Output, Step, go_on

pytestmark = pytest.mark.integration

VALUES = [f"v{number}" for number in range(500)]


async def test_every_record_is_handled_once_and_counted(stream, running, until) -> None:
    """The whole point: nothing lost, nothing doubled, the state right."""
    await stream.send(VALUES)
    async with running(stream.processor()):
        assert await until(lambda: _all_out(stream, 500))
    assert sorted(await stream.numbered()) == sorted(stream.numbering(VALUES))


async def test_a_restart_goes_on_with_the_restored_state(stream, running, until) -> None:
    """Counts that start again at one after each deployment would be wrong features."""
    await stream.send(VALUES[:200])
    async with running(stream.processor()):
        assert await until(lambda: _all_out(stream, 200))
    await stream.send(VALUES[200:])
    async with running(stream.processor()):
        assert await until(lambda: _all_out(stream, 500))
    assert sorted(await stream.numbered()) == sorted(stream.numbering(VALUES))


async def test_two_members_share_the_partitions_and_hand_them_over(stream, running, until) -> None:
    """Scaling out and in during a stream must cost nothing."""
    first, second = stream.processor(), stream.processor()
    async with running(first):
        await stream.send(VALUES[:100])
        assert await until(lambda: _all_out(stream, 100))
        async with running(second):
            assert await until(lambda: len(first._assigned) == len(second._assigned or ()) == 1)
            await stream.send(VALUES[100:300])
            assert await until(lambda: _all_out(stream, 300))
        await stream.send(VALUES[300:])
        assert await until(lambda: _all_out(stream, 500))
    assert sorted(await stream.numbered()) == sorted(stream.numbering(VALUES))


async def test_poison_becomes_a_dead_letter_in_the_same_transaction(stream, running, until) -> None:
    """One bad record must neither stop the stream nor vanish."""
    values = [*VALUES[:50], "poison-1", *VALUES[50:100], "poison-2"]
    await stream.send(values)
    async with running(stream.processor()):
        assert await until(lambda: _all_out(stream, 100))
        assert await until(lambda: _are(stream.dead, 2))
    verdict = check(
        values, await stream.came_out(), poison={"poison-1", "poison-2"}, dead=await stream.dead()
    )
    assert verdict.ok, verdict


async def test_a_batch_that_fails_for_good_is_taken_apart(stream, running, until) -> None:
    """A record that breaks the derivation must not take its neighbours with it."""
    values = [*VALUES[:40], "bomb-1", *VALUES[40:80], "bomb-2", "bomb-3", *VALUES[80:100]]
    await stream.send(values)
    async with running(stream.processor()):
        assert await until(lambda: _all_out(stream, 100))
        assert await until(lambda: _are(stream.dead, 3))
    poison = {"bomb-1", "bomb-2", "bomb-3"}
    verdict = check(values, await stream.came_out(), poison=poison, dead=await stream.dead())
    assert verdict.ok, verdict


async def test_too_many_dead_letters_stop_the_processor(stream, running) -> None:
    """A wrong schema upstream must not drain a topic into the dead letters over night."""
    await stream.send([f"poison-{number}" for number in range(100)])
    limit = PlatformSettings(dead_letter_limit_count=10, dead_letter_limit_share=0.5, max_backoff_seconds=1)
    async with running(stream.processor(platform=limit, max_records=20)) as (task,):
        with pytest.raises(DeadLetterLimitExceeded, match="EVERLOOP_DEAD_LETTER_LIMIT_COUNT"):
            await asyncio.wait_for(asyncio.shield(task), 15)
    assert len(await stream.dead()) <= 10


async def test_a_new_generation_replays_without_a_new_record(stream, running, until) -> None:
    """A changed definition must reach what is there already, on a quiet topic too."""
    await stream.send(VALUES[:100])
    async with running(stream.processor()):
        assert await until(lambda: _all_out(stream, 100))
    stream.generation = "2"
    async with running(stream.processor()):
        assert await until(lambda: _all_out(stream, 200))
    assert sorted(await stream.numbered()) == sorted(stream.numbering(VALUES[:100]) * 2)


async def test_reopening_a_topic_replays_under_the_new_generation(stream, running, until) -> None:
    """A pipeline that is applied again while the service runs takes effect without a restart."""
    await stream.send(VALUES[:100])
    processor = stream.processor()
    async with running(processor):
        assert await until(lambda: _all_out(stream, 100))
        stream.generation = "2"
        processor.reopen(stream.topic)
        assert await until(lambda: _all_out(stream, 200))
    assert sorted(await stream.numbered()) == sorted(stream.numbering(VALUES[:100]) * 2)


async def test_a_topic_that_appears_later_is_found(stream, running, until) -> None:
    """A new pipeline needs no restart."""
    other = f"{stream.name}.later"
    async with running(stream.processor()):
        await stream.send(VALUES[:10])
        assert await until(lambda: _all_out(stream, 10))
        await ensure_topics(stream.kafka, {other: (2, {})})
        await stream.send(VALUES[10:20], topic=other)
        assert await until(lambda: _all_out(stream, 20))


async def test_a_topic_that_is_told_of_is_found_at_once(stream, running, until, monkeypatch) -> None:
    """Whoever has just applied a pipeline must not wait until metadata is renewed by itself."""
    monkeypatch.setattr("everloop_kernel.settings.METADATA_MAX_AGE_MS", 3_600_000)
    other, processor = f"{stream.name}.told", stream.processor()
    async with running(processor):
        await stream.send(VALUES[:10])
        assert await until(lambda: _all_out(stream, 10))
        await ensure_topics(stream.kafka, {other: (2, {})})
        await stream.send(VALUES[10:20], topic=other)
        processor.reopen(other)
        assert await until(lambda: _all_out(stream, 20))


async def test_an_idle_lane_gives_its_producer_up_and_wakes(stream, running, until) -> None:
    """A hundred quiet pipelines must not hold four hundred producers, nor miss their next record."""
    processor = stream.processor(idle_seconds=0.5)
    async with running(processor):
        await stream.send(VALUES[:10])
        assert await until(lambda: _all_out(stream, 10))
        assert await until(lambda: not any(lane._writer.is_open for lane in processor._lanes.values()))
        await stream.send(VALUES[10:20])
        assert await until(lambda: _all_out(stream, 20))
    assert sorted(await stream.numbered()) == sorted([f"v{n}#{n // 2 + 1}" for n in range(20)])


async def test_lag_reaches_zero_past_transaction_markers(stream, running, until) -> None:
    """An autoscaler that always sees a lag of one would never scale in."""
    upstream = stream.processor()
    chained = stream.processor(
        group=f"{stream.group}-next", pattern=rf"^{stream.output}$", open_task=_nothing_to_say
    )
    await stream.send(VALUES[:20])
    async with running(upstream, chained):
        assert await until(lambda: _all_out(stream, 20))

        async def no_lag() -> bool:
            found = await lag(stream.kafka, f"{stream.group}-next")
            return len(found) == 2 and not any(found.values())

        assert await until(no_lag)


async def test_readiness_and_metrics(stream, running, until) -> None:
    """A member without its partitions must not be taken for a working one."""
    processor = stream.processor()
    assert "not been assigned" in processor.not_ready()
    async with running(processor):
        assert await until(lambda: processor.not_ready() is None)
        await stream.send(VALUES[:10])
        assert await until(lambda: _all_out(stream, 10))
    assert HANDLED_RECORDS.labels(stream.group, stream.topic)._value.get() == 10


async def test_results_larger_than_one_batch_go_out(stream, running, until) -> None:
    """Records of a megabyte are rare and must pass all the same."""
    big = "x" * 900_000
    await stream.send([f"{number}{big}" for number in range(6)])
    async with running(stream.processor()):
        assert await until(lambda: _all_out(stream, 6))


async def test_a_result_too_large_for_its_topic_is_a_dead_letter(stream, running, until) -> None:
    """What the broker will never take must not be tried for ever."""
    values = ["a", "b" * 900_000, "c", "d"]
    await stream.send(values)
    stream.open_task = _swelling(stream.open_task)
    async with running(stream.processor()):
        assert await until(lambda: _all_out(stream, 3), seconds=20)
        assert await until(lambda: _are(stream.dead, 1))


async def test_the_largest_record_fits_the_dead_letters(stream, running, until) -> None:
    """A dead letter that cannot be written would stop the stream for good."""
    await stream.send(["poison" + "x" * 2_096_900])
    async with running(stream.processor()):
        assert await until(lambda: _are(stream.dead, 1))


def _swelling(open_task):
    async def opened(partition):
        task = await open_task(partition)
        derive = task.derive

        def swollen(records):
            step = derive(records)
            outputs = [out._replace(value=out.value * 2) for out in step.outputs]
            return Step(outputs, step.dead, step.state)

        task.derive = swollen
        return task

    return opened


class _Silent:
    generation = "1"

    def restore_from(self):
        return []

    def restore(self, records):
        pass

    def begin(self, beginning, committed):
        return go_on(beginning, committed)

    def derive(self, records):
        outputs: list[Output] = []
        return Step(outputs, [], None)

    def apply(self, state):
        pass


async def _nothing_to_say(_partition: TopicPartition) -> _Silent:
    return _Silent()


async def _are(read, count: int) -> bool:
    return len(await read()) >= count


async def _all_out(stream, count: int) -> bool:
    return len(await stream.numbered()) >= count
