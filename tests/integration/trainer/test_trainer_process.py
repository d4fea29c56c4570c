"""The trainer as a process, on a real Kafka and a real Postgres."""

import asyncio
import io
import json
import sys
import tarfile
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from everloop_features import Encoder
from everloop_kernel import artifacts
from everloop_schemas.events import ModelTrained, RunFailed, RunStarted

sys.path.insert(0, str(Path(__file__).parent))
from trainer_rig import Ears, Neighbours, World, check_segments, pipeline_of, trainer

pytestmark = pytest.mark.integration


async def test_data_becomes_a_model_that_can_be_rebuilt(broker, postgres, home, unique):
    """The loop's heart: rows in, one run, one model, its bytes on their topic, and an audit that agrees."""
    world = World(pipeline_of(unique("flights")))
    name = world.pipeline.pipeline
    async with (
        Neighbours(broker) as neighbours,
        trainer(broker, postgres.dsn, home, segment_rows=700) as process,
        Ears(broker, name) as ears,
    ):
        await neighbours.define(world)
        world.grow(2000)
        await neighbours.publish(world)
        trained = await ears.wait_for(ModelTrained)
        started = ears.of(RunStarted)[0]
        assert started.trigger.kind == "new-data"
        assert trained.run_id == started.run_id
        assert trained.dataset.cut == started.cut
        assert 1500 <= trained.dataset.rows <= 2000
        assert trained.model_version == 1
        loss = trained.metrics[0]
        assert loss.name == "log_loss"
        assert loss.candidate < loss.prior
        assert loss.champion is None
        assert {s.feature for s in loss.slices} == {"carrier", "origin"}
        await check_artifact(neighbours.kafka, trained)
        await check_pages(process, world, trained)
        await check_experiment(process, neighbours, ears, world, trained)
        await check_drift(neighbours, ears, world, trained)
        await check_memory(process)
        await check_segments(postgres, home, name)


async def check_artifact(kafka, trained):
    """Its bytes are on the topic, whole, and its golden predictions hold through serving's own encoder."""
    data = await artifacts.fetch(kafka, trained.artifact.sha256)
    assert len(data) == trained.artifact.bytes
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))
        booster = lightgbm.Booster(model_str=tar.extractfile("model.txt").read().decode())
    assert manifest["dataset"] == trained.dataset.sha256
    assert len(manifest["golden"]) == 20
    rows = [Encoder(manifest["features"]).row(golden["values"]) for golden in manifest["golden"]]
    assert booster.predict(np.array(rows)).tolist() == [golden["output"] for golden in manifest["golden"]]


async def check_pages(process, world, trained):
    """Runs, one observation with its vector and label, and the verification."""
    name = world.pipeline.pipeline
    runs = (await process.get(f"/v1/runs?pipeline={name}")).json()
    assert [(run["state"], run["model_version"]) for run in runs] == [("trained", 1)]
    assert (await process.get(f"/v1/runs/{trained.run_id}")).json()["trained"]["dataset"]["rows"] > 0
    for seen in ("f0", "f1999"):  # in a segment, and among the rows that are staged
        page = (await process.get(f"/v1/pipelines/{name}/observations/{seen}")).json()
        assert page["observation"]["fields"]["origin"] == page["label"]["fields"]["origin"]
        assert page["vector"]["offset"] == page["observation"]["offset"]
        assert list(page["vector"]["values"]) == sorted(world.pipeline.features)
    verified = (await process.post(f"/v1/pipelines/{name}/models/1/verify")).json()
    assert verified["dataset"] == {
        "recorded": trained.dataset.sha256,
        "rebuilt": trained.dataset.sha256,
        "equal": True,
    }
    assert verified["artifact"]["equal"] is True
    assert (await process.get(f"/v1/pipelines/{name}/observations/nobody")).status_code == 404
    assert "no version 9" in (await process.post(f"/v1/pipelines/{name}/models/9/verify")).json()["detail"]
    nobody = await process.post("/v1/pipelines/nobody/models/1/verify")
    assert (nobody.status_code, nobody.json()["title"]) == (404, "No such pipeline")
    assert (await process.post("/v1/pipelines/nothing/runs", {})).status_code == 404


async def check_experiment(process, neighbours, ears, world, trained):
    """A person's run with other parameters happens at once, is asked for once, and answers nothing else."""
    await neighbours.deploy(trained)
    name = world.pipeline.pipeline
    asked = {"reason": "try", "parameters": {"trees": 1}}
    answers = [
        await process.post(f"/v1/pipelines/{name}/runs", asked, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    second = await ears.wait_for(ModelTrained, 2)
    assert {answer.json()["run_id"] for answer in answers} == {second.run_id}
    assert second.parameters["trees"] == 1
    assert second.metrics[0].candidate > trained.metrics[0].candidate
    refused = await process.post(f"/v1/pipelines/{name}/runs", {"parameters": {"tress": 1}})
    assert refused.status_code == 422
    assert "tress is no parameter" in refused.json()["detail"]


async def check_drift(neighbours, ears, world, trained):
    """Drift waits for rows to learn from; then one run, compared with the champion on rows new to both."""
    await neighbours.drift(world)
    await ears.listen(1.5)
    assert len(ears.of(RunStarted)) == 2
    world.grow(600)
    await neighbours.publish(world, arrive=False)
    third = await ears.wait_for(ModelTrained, 3)
    assert third.trigger.kind == "drift"
    assert third.trigger.event_id == "drift-1"
    assert third.champion_version == trained.model_version
    assert third.metrics[0].champion is not None
    assert 0 <= third.metrics[0].better_than_champion_confidence <= 1
    assert third.dataset.test_rows <= 600


async def check_memory(process):
    """The service idles: numbers are the business of its children."""
    maps = process.mapped_files()
    assert [name for name in ("numpy", "pyarrow", "lightgbm", "pandas", "scipy") if f"/{name}/" in maps] == []


async def test_corrections_follow_from_their_cut_on(broker, postgres, home, unique):
    """What is retracted or revised leaves later datasets; earlier ones stay as they were made."""
    world = World(pipeline_of(unique("flights"), rows=700, trees=5))
    name = world.pipeline.pipeline
    async with (
        Neighbours(broker) as neighbours,
        trainer(broker, postgres.dsn, home, segment_rows=200) as process,
        Ears(broker, name) as ears,
    ):
        await neighbours.define(world)
        world.grow(400)
        await neighbours.publish(world)
        await shown(process, name, ["f398", "f399"], "label")
        first = await asked_for(process, ears, name, 1)
        world.correct(retracted=range(0, 30, 3), revised=range(100, 110), nullified=range(200, 205))
        await neighbours.publish(world)
        await shown(process, name, ["f24", "f27"], "retraction")
        second = await asked_for(process, ears, name, 2)
        assert second.dataset.rows == first.dataset.rows - 10 - 5
        assert second.dataset.sha256 != first.dataset.sha256
        for model in (first, second):
            number = model.model_version
            verified = (await process.post(f"/v1/pipelines/{name}/models/{number}/verify")).json()
            assert verified["dataset"] == {
                "recorded": model.dataset.sha256,
                "rebuilt": model.dataset.sha256,
                "equal": True,
            }
        page = (await process.get(f"/v1/pipelines/{name}/observations/f3")).json()
        assert page["retraction"]["known_at"] > page["observation"]["known_at"]
        assert page["label"]["fields"]["delay"] is not None
        page = (await process.get(f"/v1/pipelines/{name}/observations/f100")).json()
        assert (page["label"]["fields"]["delay"], page["retraction"]) == (99.0, None)


async def shown(process, name, ids, part):
    """Wait until the trainer has these entries: the last of each partition."""
    async with asyncio.timeout(60):
        for seen in ids:
            while True:
                answer = await process.get(f"/v1/pipelines/{name}/observations/{seen}")
                if answer.status_code == 200 and answer.json()[part] is not None:
                    break
                await asyncio.sleep(0.2)


async def asked_for(process, ears, name, count):
    """The model of a run that a person asks for."""
    answer = await process.post(f"/v1/pipelines/{name}/runs", {"reason": "corrected"})
    assert answer.status_code == 202, answer.text
    return await ears.wait_for(ModelTrained, count)


async def test_a_run_that_cannot_work_says_why(broker, postgres, home, unique):
    """Labels of one kind only: no model, a reason, what to do, and the next rows are tried again."""
    world = World(pipeline_of(unique("alike"), rows=400))
    world.grow(450)
    for log in world.logs.values():
        for i, record in enumerate(log):
            if record.kind == "label":
                log[i] = record.model_copy(update={"fields": {**record.fields, "delay": -1.0}})
    async with (
        Neighbours(broker) as neighbours,
        trainer(broker, postgres.dsn, home),
        Ears(broker, world.pipeline.pipeline) as ears,
    ):
        await neighbours.define(world)
        await neighbours.publish(world)
        failed = await ears.wait_for(RunFailed)
        assert "rows have the label 0" in failed.reason
        assert failed.mend
        world.grow(400)
        await neighbours.publish(world)
        assert (await ears.wait_for(ModelTrained)).model_version == 1


async def test_a_run_waits_until_its_vectors_are_there(broker, postgres, home, unique):
    """A feature service that lags must not make the trainer train on half of its rows."""
    world = World(pipeline_of(unique("lagging")))
    world.grow(2000)
    async with (
        Neighbours(broker) as neighbours,
        trainer(broker, postgres.dsn, home),
        Ears(broker, world.pipeline.pipeline) as ears,
    ):
        await neighbours.define(world)
        await neighbours.publish(world, vectors=False)
        await ears.wait_for(RunStarted)
        await neighbours.compute(world, 0, 0)
        await ears.listen(1.5)
        assert ears.of(ModelTrained) == []
        await neighbours.compute(world, 1, 0)
        trained = await ears.wait_for(ModelTrained)
        assert trained.dataset.rows >= 1500
