# ruff: noqa: E501  # tables of requests
"""The HTTP API without a network: every route, every mistake a caller can make."""

import asyncio
import gzip
import json
import struct
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest
from everloop_features import microseconds
from everloop_kernel import telemetry
from everloop_kernel.auth import Tokens, create_token
from everloop_kernel.http_message import Request, Response
from everloop_schemas import cloudevents
from everloop_schemas.events import PredictionMade
from everloop_serving.entrypoints.errors import error_response
from integration.serving.deployed_model import RECORD, expected_output, infer_body
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from unit.serving.http_api import INFER, NAME, TRACE, Api


@pytest.fixture(scope="module")
def api() -> Api:
    return Api()


def test_an_answer_and_its_event_say_the_same(api: Api) -> None:
    """Monitoring judges what clients got."""
    api.events.clear()
    answer = json.loads(api.post(INFER, infer_body([RECORD], "a1"), traceparent=TRACE).body)
    expected = expected_output(api.data, RECORD)
    assert answer == {
        "model_name": NAME,
        "model_version": "1",
        "id": "a1",
        "outputs": [{"name": "probability", "datatype": "FP64", "shape": [1], "data": [expected]}],
    }
    [sent] = api.events
    event = cloudevents.decode(PredictionMade, sent.value, sent.headers)
    assert (event.id, event.output, event.arm, event.propensity) == ("a1", expected, "champion", 1.0)
    assert (event.model_version, event.pipeline_version, event.state_age_seconds) == (1, 1, 1.5)
    assert event.event_time == datetime(2013, 1, 1, 5, 15, tzinfo=UTC)
    assert (sent.topic, sent.key) == (f"serving-prediction-made-v1.{NAME}", b"EWR")
    assert dict(sent.headers)["traceparent"] == TRACE.encode()


def test_many_rows_are_answered_like_single_ones(api: Api) -> None:
    """Batches must not change an answer, nor hold up others (they run in slices)."""
    rows = [{**RECORD, "wind": float(n), "carrier": None if n % 3 else "AA"} for n in range(200)]
    answer = json.loads(api.post(INFER, infer_body(rows, "b")).body)
    assert answer["outputs"][0]["data"] == [expected_output(api.data, row) for row in rows]
    assert [cloudevents.decode(PredictionMade, e.value, e.headers).id for e in api.events[-200:]] == [
        f"b-{n}" for n in range(200)
    ]


def test_each_request_of_a_moment_has_its_own_span(api: Api, monkeypatch) -> None:
    """Two clients that ask at once must find two traces, each with its own prediction."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry._State, "enabled", True)
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer)
    traces = [TRACE, TRACE.replace("0af7", "0bf7")]

    async def ask_at_once() -> list[Response]:
        body = json.dumps(infer_body([RECORD])).encode()
        requests = [
            Request(b"POST", INFER.encode(), {b"traceparent": each.encode()}, body) for each in traces
        ]
        return await asyncio.gather(*[api.routes(request) for request in requests])

    assert [answer.status for answer in asyncio.run(ask_at_once())] == [200, 200]
    spans = exporter.get_finished_spans()
    assert [f"{span.context.trace_id:032x}" for span in spans] == [each.split("-")[1] for each in traces]
    told = [dict(event.headers)["traceparent"].decode().split("-")[1:3] for event in api.events[-2:]]
    assert told == [[f"{s.context.trace_id:032x}", f"{s.context.span_id:016x}"] for s in spans]


def test_a_version_is_asked_by_its_number(api: Api) -> None:
    """A frozen model is compared with the champion."""
    body = json.loads(api.post(f"/v2/models/{NAME}/versions/2/infer", infer_body([RECORD], "a1")).body)
    assert body["model_version"] == "2"
    assert cloudevents.decode(PredictionMade, api.events[-1].value, api.events[-1].headers).arm == "pinned"


def test_a_request_without_id_gets_one(api: Api) -> None:
    """Without an id its label could never be joined."""
    body = json.loads(api.post(INFER, infer_body([RECORD])).body)
    assert len(body["id"]) == 32
    assert cloudevents.decode(PredictionMade, api.events[-1].value, api.events[-1].headers).id == body["id"]


def test_the_vector_can_be_asked_for(api: Api) -> None:
    """Whoever debugs skew needs what the model saw."""
    body = json.loads(api.post(INFER, infer_body([RECORD], parameters={"vector": True})).body)
    event = cloudevents.decode(PredictionMade, api.events[-1].value, api.events[-1].headers)
    assert body["outputs"][1]["name"] == "vector"
    vector = json.loads(body["outputs"][1]["data"][0])
    assert list(vector.values()) == event.values
    assert vector["distance"] == pytest.approx(np.log1p(RECORD["distance"]))


def test_binary_tensors_go_in_and_out(api: Api) -> None:
    """Triton's client sends them by default."""
    request = infer_body([RECORD], "a1")
    raw = struct.pack("<d", RECORD["distance"])
    for tensor in request["inputs"]:
        if tensor["name"] == "distance":
            del tensor["data"]
            tensor["parameters"] = {"binary_data_size": 8}
    request["outputs"] = [{"name": "probability", "parameters": {"binary_data": True}}]
    head = json.dumps(request).encode()
    answer = api.post(INFER, head + raw, inference_header_content_length=str(len(head)))
    length = int(dict(answer.headers)[b"inference-header-content-length"])
    assert json.loads(answer.body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert struct.unpack("<d", answer.body[length:]) == (expected_output(api.data, RECORD),)
    for wrong in ("x", str(len(head) + 100), str(len(head) - 3)):
        assert api.post(INFER, head + raw, inference_header_content_length=wrong).status == 400
    assert api.post(INFER, head, inference_header_content_length=str(len(head))).status == 400
    assert api.post(INFER, head + raw + b"x", inference_header_content_length=str(len(head))).status == 400


def test_plain_json_answers_one_record_or_a_list(api: Api) -> None:
    """The way in for people with curl."""
    one = json.loads(api.post(f"/v1/pipelines/{NAME}/predict", {"id": "a1", **RECORD}).body)
    expected = expected_output(api.data, RECORD)
    assert one == {"id": "a1", "probability": expected, "model_version": 1}
    many = json.loads(api.post(f"/v1/pipelines/{NAME}/predict", [{"id": "a2", **RECORD}, RECORD]).body)
    assert [p["probability"] for p in many["predictions"]] == [expected] * 2
    assert many["predictions"][0]["id"] == "a2"


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        (INFER, b"", 400, "no inference request"),
        (INFER, b"{", 400, "no inference request"),
        (INFER, b"[]", 400, "no inference request"),
        (INFER, b"\xff", 400, "no inference request"),
        (INFER, b"[" * 100_000, 400, "no inference request"),
        (INFER, b'{"inputs": []}', 400, "no inputs"),
        (INFER, b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [NaN]}]}', 400, "no inference"),
        (INFER, {"inputs": [{"name": "x", "datatype": "FP64", "shape": ["1"], "data": [1]}]}, 400, "shape"),
        (INFER, {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1]}]}, 400, "'x'"),
        (INFER, {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1]}]}, 400, "'x' is not known"),
        (INFER, infer_body([RECORD], "x" * 300), 400, "256"),
        (INFER, infer_body([RECORD], outputs=[{"name": "y"}]), 400, "output 'y'"),
        (INFER, infer_body([RECORD] * 501), 400, "at most 500"),
        ("/v2/models/nobody/infer", infer_body([RECORD]), 404, "'nobody'"),
        (f"/v2/models/{NAME}/versions/9/infer", infer_body([RECORD]), 404, "loaded are 1, 2"),
        (f"/v2/models/{NAME}/versions/99999999999999999999/infer", infer_body([RECORD]), 404, "not loaded"),
        ("/v2/models/soon/infer", infer_body([RECORD]), 503, "loading"),
        (f"/v1/pipelines/{NAME}/predict", {**RECORD, "speed": 1}, 400, "'speed'"),
        (f"/v1/pipelines/{NAME}/predict", {**RECORD, "distance": None}, 400, "'distance' must not be null"),
        (f"/v1/pipelines/{NAME}/predict", b'{"origin": "EWR", "origin": "JFK"}', 400, "origin"),
        (f"/v1/pipelines/{NAME}/predict", b'[{"origin": "EWR", "origin": "JFK"}]', 400, "twice"),
        (f"/v1/pipelines/{NAME}/predict", b'[{"distance": NaN}]', 400, "NaN"),
        (f"/v1/pipelines/{NAME}/predict", b"[]", 400, "0 records"),
        (f"/v1/pipelines/{NAME}/predict", b"[1]", 400, "objects"),
        (f"/v1/pipelines/{NAME}/predict", b"5", 400, "object"),
        (f"/v1/pipelines/{NAME}/online", {"carrier": "UA"}, 400, "'origin' is missing"),
        (f"/v1/pipelines/{NAME}/online", {"origin": "EWR", "speed": 1}, 400, "'speed'"),
        (f"/v1/pipelines/{NAME}/online", {"origin": "EWR", "departs": "now"}, 400, "'departs'"),
        (f"/v1/pipelines/{NAME}/online", [], 400, "0 keys"),
        ("/v2/models", b"", 404, "/v2"),
        ("/v2/models/a/b/c/d/e/f/g/h/i", b"", 404, "/v2"),
        ("/%ff", b"", 404, "/v2"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(api: Api, path: str, body: object, status: int, says: str) -> None:
    """A caller must read what is wrong, and never a traceback."""
    answer = api.post(path, body)
    assert answer.status == status, answer.body
    error = json.loads(answer.body)["error"]
    assert says in error
    assert "Traceback" not in error


def test_methods_and_content_types(api: Api) -> None:
    """The wrong method or a form must be told from a wrong body."""
    answer = api.ask("GET", INFER)
    assert (answer.status, dict(answer.headers)[b"allow"]) == (405, b"POST")
    assert api.post("/v2/health/live", b"").status == 405
    form = api.post(INFER, infer_body([RECORD]), content_type="application/x-www-form-urlencoded")
    assert form.status == 415
    assert api.post(INFER, infer_body([RECORD]), content_encoding="br").status == 415
    assert api.post(INFER, infer_body([RECORD]), content_type="application/json; charset=utf-8").status == 200


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_bodies_are_read_within_bounds(api: Api, coding, pack) -> None:
    """A kilobyte may unpack to a gigabyte: the limit counts what comes out."""
    body = json.dumps(infer_body([RECORD], "z1")).encode()
    answer = api.post(INFER, pack(body), content_encoding=coding)
    assert json.loads(answer.body)["outputs"][0]["data"] == [expected_output(api.data, RECORD)]
    bomb = api.post(INFER, pack(bytes(50_000_000)), content_encoding=coding)
    assert (bomb.status, "more than 100000 bytes" in bomb.body.decode()) == (413, True)
    for broken in (pack(body)[:-9], b"nothing", b"", pack(body) + b"more"):
        assert api.post(INFER, broken, content_encoding=coding).status == 400


def test_metadata_health_and_metrics(api: Api) -> None:
    """Load balancers, clients and Prometheus ask these."""
    server = json.loads(api.ask("GET", "/v2").body)
    assert server["name"] == "everloop-serving"
    assert server["extensions"] == [
        "binary_tensor_data", "model_configuration", "model_repository", "statistics",
    ]  # fmt: skip
    model = json.loads(api.ask("GET", f"/v2/models/{NAME}").body)
    assert (model["versions"], model["platform"]) == (["1", "2"], "lightgbm")
    assert {"name": "distance", "datatype": "FP64", "shape": [-1]} in model["inputs"]
    assert {"name": "departs", "datatype": "BYTES", "shape": [-1]} in model["inputs"]
    assert model["outputs"] == [{"name": "probability", "datatype": "FP64", "shape": [-1]}]
    for path in ("/v2/health/live", "/v2/health/ready", "/health/live", "/health/ready", "/metrics"):
        assert api.ask("GET", path).status == 200
    assert api.ask("GET", f"/v2/models/{NAME}/ready").status == 200
    assert api.ask("GET", f"/v2/models/{NAME}/versions/2/ready").status == 200
    assert api.ask("GET", f"/v2/models/{NAME}/versions/3/ready").status == 404
    assert api.ask("GET", "/v2/models/soon/ready").status == 503
    api.part.reason = "it is early"
    assert json.loads(api.ask("GET", "/v2/health/ready").body)["components"] == [
        {"name": "part", "ready": False, "reason": "it is early"}
    ]
    api.part.reason = None


def test_metrics_count_answers_and_mistakes() -> None:
    """Alerts are made of them."""
    api = Api()
    api.post(INFER, infer_body([RECORD, RECORD]))
    api.post(INFER, b"{")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in api.metrics.collect()
        for sample in family.samples
    }
    labels = (("arm", "champion"), ("model_version", "1"), ("pipeline", NAME))
    assert found["everloop_serving_predictions_total", *labels] == 2
    assert found["everloop_serving_request_seconds_count", *labels] == 1
    assert found["everloop_serving_errors_total", ("kind", "invalid"), ("protocol", "http")] == 1


def test_tokens_are_asked_for_where_they_are_set_up(tmp_path) -> None:
    """A model's answers are somebody's data."""
    path = tmp_path / "tokens"
    reader = create_token(path, "client", ["reader"], [NAME])
    producer = create_token(path, "source", ["producer"])
    other = create_token(path, "other", ["reader"], ["weather"])
    api = Api(Tokens(path))
    body = infer_body([RECORD])
    assert api.post(INFER, body).status == 401
    assert api.post(INFER, body, authorization="Bearer wrong").status == 401
    assert api.post(INFER, body, authorization=f"Bearer {producer}").status == 403
    assert api.post(INFER, body, authorization=f"Bearer {other}").status == 403
    assert api.post(INFER, body, authorization=f"Bearer {reader}").status == 200
    assert api.ask("GET", f"/v2/models/{NAME}").status == 401
    assert api.ask("GET", "/v2/health/ready").status == 200


def test_a_page_of_another_origin_may_not_ask_a_local_server(api: Api) -> None:
    """Without tokens any web page in the operator's browser could."""
    assert api.post(INFER, infer_body([RECORD]), origin="https://evil.example").status == 403
    assert api.post(INFER, infer_body([RECORD]), origin="http://localhost:3000").status == 200


def test_the_servers_own_refusals_speak_the_protocol() -> None:
    """A client of the Open Inference Protocol reads `error`, also where the request is no HTTP."""
    answer = error_response(400, "this is not HTTP/1.1", (b"retry-after", b"1"))
    assert (answer.status, answer.body) == (400, b'{"error":"this is not HTTP/1.1"}')
    assert answer.headers == [(b"retry-after", b"1")]


def test_online_features_are_those_that_a_prediction_would_see(api):
    """A dashboard that reads other features than the model sees explains nothing."""
    state = api.models.version(NAME, "1").state.reader.begin()
    fields = {name: value for name, value in RECORD.items() if name != "departs"}
    departs_us = microseconds(datetime.fromisoformat(RECORD["departs"]))
    for number in range(3):
        state.observe(str(number), fields, departs_us, departs_us)
    api.models.version(NAME, "1").state.reader.merge(state)
    logged = len(api.events)
    found = json.loads(api.post(f"/v1/pipelines/{NAME}/online", RECORD).body)
    model = api.models.version(NAME, "1")
    (values,), _ = model.answer([model.inputs.row(RECORD, "a")])
    assert list(found["features"].values()) == values
    assert found["features"]["origin_flights_1h"] == 3.0
    assert (found["pipeline_version"], found["state_age_seconds"]) == (1, 1.5)
    assert len(api.events) == logged


def test_online_needs_the_key_alone_and_answers_for_now(api):
    """What a caller does not know is null; windows end now, not at the last record."""
    keys = [{"origin": origin} for origin in ("EWR", "JFK") for _ in range(70)]
    rows = json.loads(api.post(f"/v1/pipelines/{NAME}/online", keys).body)["rows"]
    assert [row["origin"] for row in rows] == [key["origin"] for key in keys]
    assert (rows[0]["wind"], rows[0]["origin_flights_1h"], rows[0]["route"]) == (None, 0.0, "EWR-none")
