"""Data gates hold the trainer back, also where it has consumed more than they have judged."""

import sys
import time
from pathlib import Path

import pytest
from everloop_schemas.events import ModelTrained, RunStarted

sys.path.insert(0, str(Path(__file__).parent))
from trainer_rig import Ears, Neighbours, World, pipeline_of, trainer

pytestmark = pytest.mark.integration


async def test_a_late_judgement_is_waited_for(broker, postgres, home, unique):
    """An old announcement must not start a run on rows that came after it and that no gate has looked at."""
    name = unique("judged")
    world = World(pipeline_of(name))
    world.grow(2000)
    async with (
        Neighbours(broker) as neighbours,
        trainer(broker, postgres.dsn, home) as process,
        Ears(broker, name) as ears,
    ):
        await neighbours.define(world)
        await neighbours.publish(world)
        await ears.wait_for(ModelTrained)
        await neighbours.announce(world, id="announced-again")
        world.grow(2000)
        await neighbours.publish(world, arrive=False)
        labels = sum(world.labels(partition) for partition in world.logs)
        ahead = await standing(process, ears, name, lambda page: page["labels"] == labels)
        assert ahead["waiting_for"].endswith("ingest has yet to judge and announce them")
        await neighbours.announce(world, blocked=True, blocked_reason="wind:null", quality_revision=1)
        held = await standing(process, ears, name, lambda page: page["blocked"])
        assert held["waiting_for"] == "blocked by the quality of the data: wind:null"
        assert len(ears.of(RunStarted)) == 1
        await neighbours.announce(world, id="lifted", quality_revision=2)
        assert (await ears.wait_for(RunStarted, 2)).trigger.kind == "new-data"


@pytest.mark.parametrize("first", [100, 1000])
async def test_announcements_are_due_by_the_widest_step_in_use(broker, postgres, home, unique, first):
    """A lowered `notify_every` must not hold a pipeline back for what the older file never announced."""
    name = unique("steps")
    world = World(pipeline_of(name, notify_every=first))
    world.grow(200)
    async with (
        Neighbours(broker) as neighbours,
        trainer(broker, postgres.dsn, home) as process,
        Ears(broker, name) as ears,
    ):
        await neighbours.define(world)
        await neighbours.publish(world)
        world.pipeline, world.version = pipeline_of(name, notify_every=100), 2
        await neighbours.define(world)
        world.grow(200)
        await neighbours.publish(world, arrive=False)
        labels = sum(world.labels(partition) for partition in world.logs)
        page = await standing(process, ears, name, lambda page: page["labels"] == labels)
        is_due = first == 100
        assert page["waiting_for"].endswith("ingest has yet to judge and announce them") is is_due, page


async def standing(process, ears, name, holds):
    """What the trainer says of the pipeline, once `holds` says so and nothing has started for a second."""
    until = time.monotonic() + 60
    while not holds(page := (await process.get(f"/v1/pipelines/{name}/training")).json()):
        assert time.monotonic() < until, page
        await ears.listen(0.2)
    await ears.listen(1.0)
    return (await process.get(f"/v1/pipelines/{name}/training")).json()
