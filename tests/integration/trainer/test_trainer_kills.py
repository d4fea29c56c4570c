"""The trainer is killed: nothing is lost, nothing is there twice."""

import asyncio
import sys
from pathlib import Path

import pytest
from everloop_schemas.events import ModelTrained, RunFailed, RunStarted

sys.path.insert(0, str(Path(__file__).parent))
from trainer_rig import Ears, Neighbours, World, check_segments, pipeline_of, trainer

pytestmark = pytest.mark.integration


async def test_a_kill_in_the_middle_of_training_costs_time_and_nothing_else(broker, postgres, home, unique):
    """kill -9 must neither lose a run nor give two models for one trigger."""
    # longer than a restart takes, or the second attempt would be through before its kill
    world = World(pipeline_of(unique("killed"), trees=10_000))
    async with Neighbours(broker) as neighbours, Ears(broker, world.pipeline.pipeline) as ears:
        async with trainer(broker, postgres.dsn, home) as process:
            await neighbours.define(world)
            world.grow(4000)
            await neighbours.publish(world)
            await ears.wait_for(RunStarted)
            for kills in range(3):
                await attempt_begun(process, world, kills + 1)
                await process.kill()
                await process.start()
            trained = await ears.wait_for(ModelTrained, seconds=120)
            run = (await process.get(f"/v1/runs/{trained.run_id}")).json()
            assert run["attempts"] == 4
            await ears.listen(3)
        assert len(ears.of(RunStarted)) == len(ears.of(ModelTrained)) == 1
        assert ears.of(RunFailed) == []
        assert list((home / "trainer" / "jobs").iterdir()) == []


async def attempt_begun(process, world, number):
    """So many attempts at the pipeline's run have begun, the last one a moment ago."""
    for _ in range(400):
        runs = (await process.get(f"/v1/runs?pipeline={world.pipeline.pipeline}")).json()
        if runs and runs[0]["attempts"] >= number:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)


async def test_kills_while_segments_are_written_leave_every_row_once(broker, postgres, home, unique):
    """A row that was lost or doubled between Postgres and Parquet would change every later model."""
    world = World(pipeline_of(unique("segments"), rows=100_000))
    async with (
        Neighbours(broker) as neighbours,
        trainer(broker, postgres.dsn, home, segment_rows=40) as process,
    ):
        await neighbours.define(world)
        for kill in range(4):
            world.grow(300)
            await neighbours.publish(world)
            await asyncio.sleep(0.4 * kill)
            await process.kill()
            await process.start()
        for _ in range(200):
            status = (await process.get(f"/v1/pipelines/{world.pipeline.pipeline}/training")).json()
            if status["labels"] == 1200:
                break
            await asyncio.sleep(0.1)
        assert status["waiting_for"] == "1200 of 100000 new labelled rows"
    async with trainer(broker, postgres.dsn, home):
        pass  # a start removes what a kill left behind
    assert await check_segments(postgres, home, world.pipeline.pipeline, 2 * 1200) >= 4
