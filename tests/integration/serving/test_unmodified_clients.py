"""Clients that know nothing of Everloop: Triton's over HTTP, and curl."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import tritonclient.http as triton
from integration.serving.deployed_model import (
    RECORD,
    expected_output,
    infer_body,
)
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

pytestmark = pytest.mark.integration

TYPES = {"origin": "BYTES", "carrier": "BYTES", "departs": "BYTES", "holiday": "BOOL", "seats": "INT64"}


def tensors(rows: list[dict], *, binary: bool, **datatypes: str) -> list[triton.InferInput]:
    made = []
    for name in rows[0]:
        datatype = datatypes.get(name) or TYPES.get(name, "FP64")
        values = np.array([row[name] for row in rows], dtype=triton_to_np_dtype(datatype))
        tensor = triton.InferInput(name, [len(rows)], datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        made.append(tensor)
    return made


@pytest.fixture
def deployed(served):
    """A served model: its name, the artifact, and Triton's client."""
    client = triton.InferenceServerClient(f"127.0.0.1:{served.process.port}")
    yield served.name, served.artifact, client
    client.close()


def test_tritons_client_asks_everything_it_can(deployed) -> None:
    """A team's load tests, gateways and notebooks speak through it: none of them may need a change."""
    name, _, client = deployed
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(name)
    assert client.is_model_ready(name, "4")
    assert not client.is_model_ready(name, "5")
    assert client.get_server_metadata()["name"] == "everloop-serving"
    metadata = client.get_model_metadata(name)
    assert (metadata["versions"], metadata["outputs"][0]["name"]) == (["4"], "probability")
    assert client.get_model_config(name, "4")["platform"] == "lightgbm"
    assert {
        "name": name,
        "version": "4",
        "state": "READY",
        "reason": "",
    } in client.get_model_repository_index()
    client.load_model(name)
    with pytest.raises(InferenceServerException, match="deployment decides"):
        client.unload_model(name)
    [statistics] = client.get_inference_statistics(name)["model_stats"]
    assert (statistics["version"], statistics["inference_stats"].keys() >= {"success"}) == ("4", True)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_tritons_client_gets_the_same_bits_in_every_encoding(deployed, binary) -> None:
    """Binary tensors are its default; what it decodes must be what LightGBM answered."""
    name, data, client = deployed
    rows = [{**RECORD, "wind": float(n), "seats": 100 + n} for n in range(70)]
    expected = [expected_output(data, row) for row in rows]
    wanted = [triton.InferRequestedOutput("probability", binary_data=binary)]
    plain = client.infer(name, tensors(rows, binary=binary), request_id="t1", outputs=wanted)
    assert plain.as_numpy("probability").tolist() == expected
    assert (plain.get_response()["id"], plain.get_response()["model_version"]) == ("t1", "4")
    for coding in ("gzip", "deflate"):
        packed = client.infer(
            name, tensors(rows, binary=binary), request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )  # fmt: skip
        assert packed.as_numpy("probability").tolist() == expected
    later = [client.async_infer(name, tensors([row], binary=binary)) for row in rows[:8]]
    assert [each.get_result().as_numpy("probability")[0] for each in later] == expected[:8]
    explained = client.infer(name, tensors(rows[:2], binary=binary), parameters={"explain": True})
    parts = [json.loads(each) for each in explained.as_numpy("explanation")]
    assert [part["vector"]["wind"] for part in parts] == [0.0, 1.0]


def test_tritons_client_sends_other_number_types(deployed) -> None:
    """A frame of float32 or small integers must not have to be widened by hand."""
    name, data, client = deployed
    rows = [{**RECORD, "distance": 1400.0, "wind": 7.5, "seats": 149}]
    expected = expected_output(data, rows[0])
    for distance, wind, seats in (
        ("FP32", "FP16", "INT32"),
        ("UINT16", "FP32", "UINT16"),
        ("INT32", "FP64", "FP32"),
    ):
        given = tensors(rows, binary=True, distance=distance, wind=wind, seats=seats)
        assert client.infer(name, given).as_numpy("probability").tolist() == [expected]


def test_tritons_client_reads_our_refusals(deployed) -> None:
    """The message must reach whoever reads the client's exception."""
    name, _, client = deployed
    for model, row, words in (
        ("nobody", RECORD, "no model of 'nobody' is deployed"),
        (name, {"origin": "EWR"}, "is missing"),
        (name, {**RECORD, "departs": "now"}, "RFC 3339"),
        (name, {**RECORD, "fog": 1.0}, "'fog' is not known"),
    ):
        with pytest.raises(InferenceServerException, match=words):
            client.infer(model, tensors([row], binary=True))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_answers(served) -> None:
    """The first thing that anybody tries."""
    name, url = served.name, served.process.url
    body = json.dumps(infer_body([RECORD], "c1"))
    json_type = ["-H", "content-type: application/json"]
    command = [
        "curl",
        "-sS",
        "--fail-with-body",
        f"{url}/v2/models/{name}/infer",
        *json_type,
        "-d",
        body,
    ]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert found["outputs"][0]["data"] == [expected_output(served.artifact, RECORD)]
    # a body over 1 KiB makes curl ask first: `Expect: 100-continue`
    many = json.dumps([{**RECORD, "id": f"c{n}"} for n in range(100)])
    command = [
        "curl",
        "-sS",
        "--fail-with-body",
        f"{url}/v1/pipelines/{name}/predict",
        *json_type,
        "--data-binary",
        "@-",
    ]
    done = subprocess.run(command, check=True, capture_output=True, input=many.encode(), timeout=20)
    assert [row["id"] for row in json.loads(done.stdout)["predictions"]] == [f"c{n}" for n in range(100)]
