"""A pipeline is changed while the trainer works on it."""

import asyncio
import dataclasses
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from everloop_schemas.events import ModelTrained, RunFailed, RunStarted

sys.path.insert(0, str(Path(__file__).parent))
from trainer_rig import START, Ears, Neighbours, World, pipeline_of, trainer

pytestmark = pytest.mark.integration


async def test_a_changed_pipeline_ends_what_waits_and_is_trained_itself(broker, postgres, home, unique):
    """Vectors of a replaced version never come: a run that waited for them would block every later one."""
    name = unique("changed")
    world = World(pipeline_of(name))
    world.grow(1800)
    async with (
        Neighbours(broker) as neighbours,
        trainer(broker, postgres.dsn, home),
        Ears(broker, name) as ears,
    ):
        await neighbours.define(world)
        await neighbours.publish(world)
        first = await ears.wait_for(ModelTrained)
        await neighbours.deploy(first)
        world.grow(1600)
        await neighbours.publish(world, vectors=False)
        waiting = await ears.wait_for(RunStarted, 2)
        world.version, world.pipeline = 2, pipeline_of(name, trees=31)
        await neighbours.define(world)
        failed = await ears.wait_for(RunFailed)
        assert failed.run_id == waiting.run_id
        changed = await ears.wait_for(RunStarted, 3)
        assert (changed.trigger.kind, changed.pipeline_version) == ("changed-pipeline", 2)
        for partition in world.logs:
            await neighbours.compute(world, partition, 0)
        second = await ears.wait_for(ModelTrained, 2)
        assert (second.pipeline_version, second.model_version) == (2, 2)
        assert second.parameters["trees"] == 31


async def test_a_changed_pipeline_waits_until_it_can_be_compared(broker, postgres, home, unique):
    """Started at once its model has nothing to be compared on, and is refused with no way out.

    One live row among the history that the champion has learnt from makes no later row of it known.
    """
    name = unique("waits")
    world = World(pipeline_of(name))
    world.grow(1499)
    world.live(START + timedelta(days=300))
    async with (
        Neighbours(broker) as neighbours,
        trainer(broker, postgres.dsn, home) as process,
        Ears(broker, name) as ears,
    ):
        await neighbours.define(world)
        await neighbours.publish(world)
        first = await ears.wait_for(ModelTrained)
        assert (first.dataset.rows, first.unseen) == (1500, None)
        await neighbours.deploy(first)
        old = dataclasses.replace(world, sent=dict(world.sent))
        world.version, world.pipeline = 2, pipeline_of(name, trees=31)
        await neighbours.define(world)
        for partition in world.logs:
            await neighbours.compute(world, partition, 0)
        world.grow(199)
        await neighbours.publish(world)
        await waits_with(process, name, "199 of the 200 labelled rows needed are newer than what model 1")
        await ears.listen(1)
        assert len(ears.of(RunStarted)) == 1
        world.grow(60)
        await neighbours.publish(world)
        for partition in world.logs:
            await neighbours.compute(old, partition, old.sent[partition])
        changed = await ears.wait_for(RunStarted, 2)
        assert (changed.trigger.kind, changed.pipeline_version) == ("changed-pipeline", 2)
        second = await ears.wait_for(ModelTrained, 2)
        assert second.champion_version == 1
        assert (second.unseen.champion_version, second.unseen.needed) == (1, 200)
        assert second.dataset.test_rows == second.unseen.rows >= 200
        verified = (await process.post(f"/v1/pipelines/{name}/models/2/verify")).json()
        assert verified["dataset"]["equal"] is verified["artifact"]["equal"] is True


async def waits_with(process, name, said):
    """Wait until the trainer gives this reason for not training."""
    async with asyncio.timeout(30):
        while True:
            status = (await process.get(f"/v1/pipelines/{name}/training")).json()
            if said in status["waiting_for"]:
                break
            await asyncio.sleep(0.2)
