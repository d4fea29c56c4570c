# tables of requests
"""Triton's extensions: what is loaded, how it is configured, what it answered."""

import json

import pytest
from everloop_kernel.auth import Tokens, create_token
from integration.serving.deployed_model import RECORD, infer_body
from unit.serving.http_api import NAME, Api


@pytest.fixture(scope="module")
def api() -> Api:
    return Api()


def test_the_repository_says_what_is_loaded_and_changes_nothing(api: Api) -> None:
    """A client that could unload a model would be a way around the registry and its signature."""
    ready = [{"name": NAME, "version": v, "state": "READY", "reason": ""} for v in ("1", "2")]
    soon = {"name": "soon", "version": "", "state": "UNAVAILABLE", "reason": "it is loading"}
    assert json.loads(api.post("/v2/repository/index", b"").body) == [*ready, soon]
    assert json.loads(api.post("/v2/repository/index", {"ready": True}).body) == ready
    assert api.post("/v2/repository/index", {"ready": "yes"}).status == 400
    assert api.post(f"/v2/repository/models/{NAME}/load", {"parameters": {"config": "{}"}}).status == 200
    refused = api.post(f"/v2/repository/models/{NAME}/unload", b"")
    assert (refused.status, "everloop rollback" in refused.body.decode()) == (409, True)
    assert [api.post(f"/v2/repository/models/nobody/{what}", b"").status for what in ("load", "unload")] == [
        404
    ] * 2
    assert api.post("/v2/repository/models/soon/load", b"").status == 503
    assert json.loads(api.post("/v2/repository/index", {"ready": True}).body) == ready


def test_lists_leave_out_what_a_token_may_not_see(tmp_path) -> None:
    """The name of a pipeline may say what a team is up to."""
    file = tmp_path / "tokens.yaml"
    mine = create_token(file, "mine", roles=["reader"], pipelines=[NAME])
    other = create_token(file, "other", roles=["reader"], pipelines=["else"])
    guarded = Api(Tokens(file))

    def names(token: str) -> tuple[set, set]:
        headers = {"authorization": f"Bearer {token}"}
        index = json.loads(guarded.post("/v2/repository/index", b"", **headers).body)
        stats = json.loads(guarded.ask("GET", "/v2/models/stats", **headers).body)["model_stats"]
        return {each["name"] for each in index}, {each["name"] for each in stats}

    assert names(mine) == ({NAME}, {NAME})
    assert names(other) == (set(), set())


def test_configuration_and_statistics_are_told(api: Api) -> None:
    """Triton's tools read them before and after a load test."""
    before = json.loads(api.ask("GET", f"/v2/models/{NAME}/versions/2/stats").body)["model_stats"][0]
    api.post(f"/v2/models/{NAME}/versions/2/infer", infer_body([RECORD] * 3, "s"))
    [after] = json.loads(api.ask("GET", f"/v2/models/{NAME}/versions/2/stats").body)["model_stats"]
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 1
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    both = json.loads(api.ask("GET", f"/v2/models/{NAME}/stats").body)["model_stats"]
    assert [(each["name"], each["version"]) for each in both] == [(NAME, "1"), (NAME, "2")]
    assert json.loads(api.ask("GET", "/v2/models/stats").body)["model_stats"] == both
    assert api.ask("GET", f"/v2/models/{NAME}/versions/7/stats").status == 404
    config = json.loads(api.ask("GET", f"/v2/models/{NAME}/config").body)
    assert {"name": "distance", "data_type": "TYPE_FP64", "dims": [-1]} in config["input"]
    assert {"name": "origin", "data_type": "TYPE_STRING", "dims": [-1]} in config["input"]
