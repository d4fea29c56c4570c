"""Serving on a real Kafka: from a signed deployment to answers and their events."""

import httpx
import pytest
from everloop_schemas import cloudevents
from everloop_schemas.events import ModelLoaded, PredictionMade
from everloop_schemas.partition import key_bytes, partition_of
from integration.serving.deployed_model import RECORD, artifact, expected_output, infer_body, reference
from integration.serving.serving_process import publish, read_topic

pytestmark = pytest.mark.integration


async def test_a_signed_deployment_is_served_and_its_predictions_are_events(
    serving, signer, kafka_settings, unique
):
    """The main path: without it no client gets an answer and no monitor sees one."""
    name = unique("flights")
    data = artifact(name)
    await publish(kafka_settings, signer.deployment(name, 1, reference(data, 3)), data)
    serving.start()
    serving.wait_for(f"/v2/models/{name}/ready")
    serving.wait_for("/health/ready")
    async with httpx.AsyncClient(base_url=serving.url) as client:
        answer = await client.post(f"/v2/models/{name}/infer", json=infer_body([RECORD], "a1"))
        plain = await client.post(f"/v1/pipelines/{name}/predict", json={"id": "a2", **RECORD})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["id"], body["model_name"], body["model_version"]) == ("a1", name, "3")
    expected = expected_output(data, RECORD)
    assert body["outputs"] == [{"name": "probability", "datatype": "FP64", "shape": [1], "data": [expected]}]
    assert plain.json() == {"id": "a2", "probability": expected, "model_version": 3}

    records = await read_topic(kafka_settings, f"serving-prediction-made-v1.{name}", until=2)
    events = [cloudevents.decode(PredictionMade, record.value, record.headers) for record in records]
    assert [event.id for event in events] == ["a1", "a2"]
    assert [event.output for event in events] == [expected, expected]
    assert (events[0].arm, events[0].propensity, events[0].model_version) == ("champion", 1.0, 3)
    assert {record.partition for record in records} == {partition_of(key_bytes(["EWR"]), 4)}
    assert {record.key for record in records} == {b"EWR"}
    loaded = [
        cloudevents.decode(ModelLoaded, record.value, record.headers)
        for record in await read_topic(kafka_settings, "serving-model-loaded-v1", until=1)
    ]
    assert [(e.loaded, e.model_version, e.revision) for e in loaded if e.pipeline == name] == [(True, 3, 1)]
