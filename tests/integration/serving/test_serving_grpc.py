"""The Open Inference Protocol over gRPC, against a real process."""

import asyncio
import json
import math
import struct

import grpc
import pytest
from everloop_serving.proto import inference_pb2 as pb
from everloop_serving.proto import inference_pb2_grpc as pb_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from integration.serving.deployed_model import RECORD, artifact, expected_output, reference
from integration.serving.serving_process import publish

pytestmark = pytest.mark.integration

CONTENTS = {"distance": ("FP64", "fp64_contents"), "wind": ("FP64", "fp64_contents"),
            "seats": ("INT64", "int64_contents"), "holiday": ("BOOL", "bool_contents")}  # fmt: skip
PACKED = {"FP64": "<d", "INT64": "<q", "BOOL": "<?"}


def request(name: str, record: dict, *, raw: bool = False) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name=name, id="g1")
    for field, value in record.items():
        datatype, contents = CONTENTS.get(field, ("BYTES", "bytes_contents"))
        tensor = made.inputs.add(name=field, datatype=datatype, shape=[1])
        data = value.encode() if datatype == "BYTES" else value
        if raw:
            packed = (
                struct.pack("<I", len(data)) + data
                if datatype == "BYTES"
                else struct.pack(PACKED[datatype], data)
            )
            made.raw_input_contents.append(packed)
        else:
            getattr(tensor.contents, contents).append(data)
    return made


async def test_the_protocol_over_grpc(serving, signer, kafka_settings, unique) -> None:
    """Clients that speak gRPC (Triton's, KServe's) get the same answers."""
    name = unique("grpc")
    data = artifact(name)
    await publish(kafka_settings, signer.deployment(name, 1, reference(data, 4)), data)
    serving.start()
    serving.wait_for(f"/v2/models/{name}/ready")
    serving.wait_for("/health/ready")
    expected = expected_output(data, RECORD)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{serving.grpc_port}") as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
        assert (await stub.ServerMetadata(pb.ServerMetadataRequest())).name == "everloop-serving"
        assert (await stub.ModelReady(pb.ModelReadyRequest(name=name, version="4"))).ready
        metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name=name))
        assert (list(metadata.versions), metadata.outputs[0].name) == (["4"], "probability")

        plain = await stub.ModelInfer(request(name, RECORD))
        assert (plain.id, plain.model_version) == ("g1", "4")
        assert list(plain.outputs[0].contents.fp64_contents) == [expected]
        raw = await stub.ModelInfer(request(name, RECORD, raw=True))
        assert raw.raw_output_contents[0] == struct.pack("<d", expected)

        asked = request(name, RECORD)
        asked.parameters["explain"].bool_param = True
        explained = (await stub.ModelInfer(asked)).outputs[1]
        explanation = json.loads(explained.contents.bytes_contents[0])
        assert (explained.name, explained.datatype, explanation["space"]) == (
            "explanation",
            "BYTES",
            "log-odds",
        )
        parts = [*explanation["contributions"].values(), explanation["base_value"]]
        assert 1 / (1 + math.exp(-sum(parts))) == pytest.approx(expected, abs=1e-12)

        for bad, code in (
            (request("nobody", RECORD), grpc.StatusCode.NOT_FOUND),
            (request(name, {**RECORD, "departs": "now"}), grpc.StatusCode.INVALID_ARGUMENT),
            (request(name, {"origin": "EWR"}), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ModelInfer(bad)
            assert refused.value.code() == code
        half = request(name, RECORD, raw=True)
        del half.raw_input_contents[-1]
        with pytest.raises(grpc.aio.AioRpcError, match="raw_input_contents"):
            await stub.ModelInfer(half)

        health = health_pb2_grpc.HealthStub(channel)
        watched = health.Watch(health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService"))
        async with asyncio.timeout(5):  # it is renewed once a second
            async for status in watched:
                if status.status == health_pb2.HealthCheckResponse.SERVING:
                    break
        watched.cancel()
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        listed = [
            answer async for answer in reflection.ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            )
        ]  # fmt: skip
        services = {service.name for service in listed[0].list_services_response.service}
        assert "inference.GRPCInferenceService" in services
