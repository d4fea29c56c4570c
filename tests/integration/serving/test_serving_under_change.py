# ruff: noqa: ASYNC110, ASYNC210, ASYNC212  # a test may block: nothing else runs in its loop
"""What may happen around serving while clients ask: swaps, bad artifacts, a broker that dies, restarts."""

import asyncio
import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from everloop_features import compile  # noqa: A004
from everloop_kernel.artifacts import chunks
from everloop_kernel.kafka import plain_producer
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import cloudevents
from everloop_schemas.events import ModelLoaded, PredictionMade
from everloop_schemas.partition import key_bytes, partition_of
from integration.serving.deployed_model import (
    RECORD,
    Signer,
    artifact,
    expected_output,
    infer_body,
    pipeline_named,
    reference,
)
from integration.serving.serving_process import ARTIFACTS, ServingProcess, publish, read_topic

pytestmark = pytest.mark.integration


def metric(serving: ServingProcess, name: str) -> float:
    text = httpx.get(serving.url + "/metrics").text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def hammer(serving: ServingProcess, name: str, until: asyncio.Event, worker: int, seen: list) -> None:
    """Ask one request after the other; note status and version."""
    async with httpx.AsyncClient(base_url=serving.url, timeout=20) as client:
        number = 0
        while not until.is_set():
            origin = ("EWR", "JFK", "LGA")[number % 3]
            body = infer_body([{**RECORD, "origin": origin}], f"{worker}-{number}")
            answer = await client.post(f"/v2/models/{name}/infer", json=body)
            version = answer.json().get("model_version") if answer.status_code == 200 else answer.text
            seen.append((answer.status_code, version, f"{worker}-{number}"))
            number += 1


async def test_a_swap_under_load_costs_no_request(serving, signer, kafka_settings, unique) -> None:
    """The loop replaces models all day: each failed request would be somebody's."""
    name = unique("swap")
    models = [artifact(name, seed=seed) for seed in (1, 2, 3, 4)]
    await publish(kafka_settings, signer.deployment(name, 1, reference(models[0], 1)), models[0])
    serving.start()
    serving.wait_for(f"/v2/models/{name}/ready")
    over, seen = asyncio.Event(), []
    workers = [asyncio.create_task(hammer(serving, name, over, worker, seen)) for worker in range(6)]
    for version, data in enumerate(models[1:], start=2):
        deployment = signer.deployment(name, version, reference(data, version))
        await publish(kafka_settings, deployment, data)
        async with asyncio.timeout(30):
            while not any(answered == str(version) for _, answered, _ in seen[-20:]):
                await asyncio.sleep(0.05)
    over.set()
    await asyncio.gather(*workers)
    assert {status for status, _, _ in seen} == {200}
    order = [int(version) for _, version, _ in seen]
    assert order == sorted(order)
    assert set(order) == {1, 2, 3, 4}

    records = await read_topic(kafka_settings, f"serving-prediction-made-v1.{name}", until=len(seen))
    events = [cloudevents.decode(PredictionMade, record.value, record.headers) for record in records]
    assert sorted(event.id for event in events) == sorted(asked for _, _, asked in seen)
    origin = compile(pipeline_named(name)).names.index("origin")
    for record, event in zip(records, events, strict=True):
        assert record.partition == partition_of(record.key, 4)
        assert event.values[origin] == record.key.decode()


async def test_a_corrupt_artifact_is_refused_while_the_old_model_answers(
    serving, signer, kafka_settings, unique
) -> None:
    """Bytes that are not what was signed must not answer a single request."""
    name = unique("corrupt")
    good, wanted = artifact(name), artifact(name, seed=2)
    await publish(kafka_settings, signer.deployment(name, 1, reference(good, 1)), good)
    serving.start()
    serving.wait_for(f"/v2/models/{name}/ready")
    digest = reference(wanted, 2).artifact.sha256
    producer = plain_producer(kafka_settings)
    await producer.start()
    for headers, piece in chunks(wanted):
        torn = piece.replace(b"leaf_value=", b"leaf_value=9", 1)
        await producer.send_and_wait(ARTIFACTS, torn, digest.encode(), 0, headers=headers)
    await producer.stop()
    await publish(kafka_settings, signer.deployment(name, 2, reference(wanted, 2)))
    async with asyncio.timeout(30):
        while not metric(serving, f'everloop_serving_refused_models_total{{pipeline="{name}"'):
            await asyncio.sleep(0.1)
    answer = httpx.post(f"{serving.url}/v2/models/{name}/infer", json=infer_body([RECORD], "a1"))
    assert answer.json()["model_version"] == "1"
    assert answer.json()["outputs"][0]["data"] == [expected_output(good, RECORD)]
    loaded = []
    async with asyncio.timeout(20):
        while len(loaded) < 2:
            records = await read_topic(kafka_settings, "serving-model-loaded-v1", until=1)
            events = [cloudevents.decode(ModelLoaded, r.value, r.headers) for r in records]
            loaded = [event for event in events if event.pipeline == name]
    assert [(event.model_version, event.loaded) for event in loaded] == [(1, True), (2, False)]
    assert "digest" in loaded[1].error


async def test_feature_state_is_part_of_the_answer(serving, signer, kafka_settings, unique) -> None:
    """A vector without the windows would be skew between training and serving."""
    name = unique("state")
    data = artifact(name)
    compiled = compile(pipeline_named(name))
    time_us = round(datetime.fromisoformat(RECORD["departs"]).timestamp() * 1e6)
    overlay = compiled.new_state(1).begin()
    for number in range(7):
        overlay.observe(f"o{number}", RECORD, time_us - 60_000_000 * (number + 1), time_us)
        overlay.absorb_label(
            f"o{number}", {"origin": "EWR", "delay": 30 * number}, time_us - 1_000_000, time_us
        )
    expected = compiled.vector(RECORD, time_us, overlay)
    assert expected[compiled.names.index("origin_flights_1h")] == 7
    await publish(kafka_settings, signer.deployment(name, 1, reference(data, 1)), data)
    producer = plain_producer(kafka_settings)
    await producer.start()
    partition = partition_of(key_bytes(["EWR"]), 4)
    for key, value in overlay.changes():
        await producer.send_and_wait(f"feature-state-changed-v1.{name}", value, key, partition)
    await producer.send_and_wait(f"feature-state-changed-v1.{name}", b"nonsense", b"v1\x1fnonsense", 0)
    await producer.stop()
    serving.start()
    serving.wait_for(f"/v2/models/{name}/ready")
    serving.wait_for("/health/ready")
    body = infer_body([RECORD], "a1", parameters={"vector": True})
    async with asyncio.timeout(15):
        vector: list = []
        while vector != expected:
            answer = httpx.post(f"{serving.url}/v2/models/{name}/infer", json=body).json()
            vector = list(json.loads(answer["outputs"][1]["data"][0]).values())
            await asyncio.sleep(0.1)
    assert metric(serving, f'everloop_serving_state_age_seconds{{pipeline="{name}"') < 30


async def test_kafka_dies_comes_back_and_no_prediction_is_lost_or_doubled(own_kafka, tmp_path: Path) -> None:
    """Serving answers without Kafka, also after a restart; its events come afterwards, once and in order."""
    kafka = KafkaSettings(bootstrap_servers=own_kafka.bootstrap_servers)
    signer, name = Signer(), "outage"
    signer.trust_in(tmp_path / "data" / "keys")
    data = artifact(name)
    await publish(kafka, signer.deployment(name, 1, reference(data, 1)), data)
    serving = ServingProcess(
        own_kafka.bootstrap_servers, tmp_path / "data", EVERLOOP_SERVING_STATE_WAIT_SECONDS="1"
    )
    asked: list[str] = []

    def ask(count: int) -> None:
        with httpx.Client(base_url=serving.url, timeout=20) as client:
            for _ in range(count):
                asked.append(f"p{len(asked)}")
                answer = client.post(f"/v2/models/{name}/infer", json=infer_body([RECORD], asked[-1]))
                assert answer.status_code == 200, answer.text

    try:
        serving.start()
        serving.wait_for(f"/v2/models/{name}/ready")
        ask(40)
        await asyncio.sleep(1)
        ask(20)  # some of these are in a transaction when the broker dies
        own_kafka.child.signal(9)
        ask(60)
        assert serving.wait_for("/health/ready").status_code == 200
        assert serving.stop() == 0, serving.log.read_text()[-5000:]
        seconds = serving.start()
        serving.wait_for(f"/v2/models/{name}/ready")
        serving.wait_for("/health/ready")
        assert seconds < 20
        ask(60)
        async with asyncio.timeout(30):
            while not metric(serving, "everloop_serving_spool_bytes"):
                await asyncio.sleep(0.1)
        own_kafka.start()
        ask(20)
        records = await read_topic(kafka, f"serving-prediction-made-v1.{name}", until=len(asked), seconds=60)
        assert metric(serving, "everloop_serving_dropped_events_total") == 0
    finally:
        with suppress(Exception):
            serving.stop()
    events = [cloudevents.decode(PredictionMade, record.value, record.headers) for record in records]
    assert [event.id for event in events] == asked


async def test_a_kill_in_the_middle_of_publishing_doubles_nothing(
    serving, signer, kafka_settings, unique
) -> None:
    """kill -9 may cost what was only in memory, never the order or a second copy."""
    name = unique("killed")
    data = artifact(name)
    await publish(kafka_settings, signer.deployment(name, 1, reference(data, 1)), data)
    asked = 0
    for _ in range(3):
        serving.start()
        serving.wait_for(f"/v2/models/{name}/ready")
        with httpx.Client(base_url=serving.url) as client:
            for _ in range(150):
                client.post(f"/v2/models/{name}/infer", json=infer_body([RECORD], f"k{asked}"))
                asked += 1
        serving.stop(9)
    serving.start()
    serving.wait_for(f"/v2/models/{name}/ready")
    httpx.post(f"{serving.url}/v2/models/{name}/infer", json=infer_body([RECORD], f"k{asked}"))
    records = await read_topic(kafka_settings, f"serving-prediction-made-v1.{name}", until=1, seconds=20)
    numbers = [int(cloudevents.decode(PredictionMade, r.value, r.headers).id[1:]) for r in records]
    assert numbers == sorted(set(numbers))
    assert asked in numbers


async def test_a_stop_publishes_what_is_queued(serving, signer, kafka_settings, unique) -> None:
    """A rolling restart must not cost a prediction."""
    name = unique("stopped")
    data = artifact(name)
    await publish(kafka_settings, signer.deployment(name, 1, reference(data, 1)), data)
    serving.start()
    serving.wait_for(f"/v2/models/{name}/ready")
    rows = infer_body([RECORD] * 300, "s")
    assert httpx.post(f"{serving.url}/v2/models/{name}/infer", json=rows).status_code == 200
    assert serving.stop() == 0
    records = await read_topic(kafka_settings, f"serving-prediction-made-v1.{name}", until=300)
    assert len(records) == 300
    assert not list((serving.data_dir / "serving" / "spool").glob("*.spool"))
