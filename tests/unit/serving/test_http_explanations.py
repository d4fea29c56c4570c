"""Explanations over HTTP are LightGBM's own, in order, and bounded."""

import asyncio
import json

import lightgbm
import msgspec
import numpy as np
import pytest
from everloop_features import Encoder
from everloop_kernel.http_message import Request, Response
from everloop_serving.domain.artifact import read_artifact
from integration.serving.deployed_model import RECORD, infer_body
from unit.serving.http_api import INFER, NAME, TRACE, Api


@pytest.fixture(scope="module")
def api() -> Api:
    return Api()


def explained_by_lightgbm(api: Api, vector: dict) -> list[float]:
    found = read_artifact(api.data)
    row = Encoder(msgspec.to_builtins(found.manifest.features)).row(list(vector.values()))
    booster = lightgbm.Booster(model_str=found.model_text.decode())
    return booster.predict([row], pred_contrib=True)[0].tolist()


def test_an_explanation_is_lightgbms_own_and_adds_up(api: Api) -> None:
    """A bank that tells a customer why must not tell something else than the model did."""
    found = json.loads(
        api.post(f"/v1/pipelines/{NAME}/predict?explain=true", {**RECORD, "id": "a1"}, traceparent=TRACE).body
    )
    explanation = found["explanation"]
    parts = [*explanation["contributions"].values(), explanation["base_value"]]
    assert parts == explained_by_lightgbm(api, explanation["vector"])
    assert explanation["score"] == pytest.approx(sum(parts), abs=1e-9)
    assert 1 / (1 + np.exp(-explanation["score"])) == pytest.approx(found["probability"], abs=1e-12)
    assert (found["id"], found["model_version"], found["pipeline_version"]) == ("a1", 1, 1)
    assert (found["arm"], found["state_age_seconds"], found["trace_id"]) == (
        "champion",
        1.5,
        TRACE.split("-")[1],
    )
    assert len(explanation["reasons"]) == 3
    largest = max(explanation["contributions"], key=lambda name: abs(explanation["contributions"][name]))
    assert explanation["reasons"][0].startswith(f"{largest} is ")


def test_rows_are_explained_in_order_over_both_protocols(api: Api) -> None:
    """An explanation of another row would be worse than none."""
    rows = [{**RECORD, "wind": float(n)} for n in range(9)]
    plain = json.loads(api.post(f"/v1/pipelines/{NAME}/predict?explain=true", rows).body)["predictions"]
    for parameters, outputs in (({"explain": True}, None), ({}, [{"name": "explanation"}])):
        more = {"parameters": parameters, **({"outputs": outputs} if outputs else {})}
        body = json.loads(api.post(INFER, infer_body(rows, "b", **more)).body)
        tensor = next(output for output in body["outputs"] if output["name"] == "explanation")
        assert (tensor["datatype"], tensor["shape"]) == ("BYTES", [9])
        assert [json.loads(each) for each in tensor["data"]] == [row["explanation"] for row in plain]
    assert [row["explanation"]["vector"]["wind"] for row in plain] == [row["wind"] for row in rows]


def test_what_is_not_explained_says_so(api: Api) -> None:
    """Explaining costs a hundred times what answering does: it must not become a way to stop serving."""
    path = f"/v1/pipelines/{NAME}/predict?explain="
    assert "explanation" not in json.loads(api.post(path + "false", RECORD).body)
    for refused in (api.post(path + "yes", RECORD), api.post(path + "true&explain=true", RECORD)):
        assert (refused.status, json.loads(refused.body)["error"]) == (
            400, "the query parameter 'explain' is true or false, once",
        )  # fmt: skip
    logged = len(api.events)
    many = api.post(path + "true", [RECORD] * 65)
    assert (many.status, "at most 64 are explained" in many.body.decode()) == (400, True)
    assert len(api.events) == logged, "a refused request makes no prediction"


def test_no_more_is_explained_at_once_than_can_be_soon(api: Api) -> None:
    """Requests that come in one moment count together; those refused make no prediction."""
    body = json.dumps([RECORD] * 64).encode()
    path = f"/v1/pipelines/{NAME}/predict?explain=true".encode()
    logged = len(api.events)

    async def ask_at_once() -> list[Response]:
        return await asyncio.gather(*[api.routes(Request(b"POST", path, {}, body)) for _ in range(6)])

    answers = asyncio.run(ask_at_once())
    assert [answer.status for answer in answers] == [200] * 4 + [503] * 2
    assert dict(answers[-1].headers)[b"retry-after"] == b"1"
    assert "256 rows wait" in answers[-1].body.decode()
    assert len(api.events) == logged + 4 * 64
    assert api.post(path.decode(), RECORD).status == 200, "the places are free again"
