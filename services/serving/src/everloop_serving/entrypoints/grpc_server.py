"""Open Inference Protocol v2, health and reflection over gRPC."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
from everloop_kernel.errors import ConfigurationError, one_line
from everloop_kernel.listen import owner_of
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from everloop_serving.application.explain import Busy
from everloop_serving.application.models import ModelNotReady, Models, UnknownModel
from everloop_serving.application.predict import Predictions
from everloop_serving.application.slices import SLICE_ROWS
from everloop_serving.domain.tensors import InvalidInput
from everloop_serving.entrypoints.access import Access, Refused
from everloop_serving.entrypoints.model_metadata import model_metadata, server_metadata
from everloop_serving.entrypoints.oip_grpc import response_of, tensors_of, wants_explanation
from everloop_serving.metrics import HotMetrics
from everloop_serving.proto import inference_pb2 as pb
from everloop_serving.proto import inference_pb2_grpc as pb_grpc

__all__ = ["GrpcServer", "InferenceService"]

_SERVICE = "inference.GRPCInferenceService"
_GRACE_SECONDS = 10.0
_HEALTH_SECONDS = 1.0
_CODES = {401: grpc.StatusCode.UNAUTHENTICATED, 403: grpc.StatusCode.PERMISSION_DENIED}
_log = logging.getLogger(__name__)

Answered = TypeVar("Answered")
Context = Any  # grpc publishes no types


class InferenceService(pb_grpc.GRPCInferenceServiceServicer):
    """The protocol's methods."""

    def __init__(
        self,
        models: Models,
        predictions: Predictions,
        access: Access,
        metrics: HotMetrics,
        ready: Callable[[], bool],
    ) -> None:
        self._models = models
        self._predictions = predictions
        self._access = access
        self._metrics = metrics
        self.ready = ready

    async def ServerLive(self, _request: pb.ServerLiveRequest, _context: Context) -> pb.ServerLiveResponse:  # noqa: N802  (the protocol's name)
        """The process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _request: pb.ServerReadyRequest, _context: Context) -> pb.ServerReadyResponse:  # noqa: N802
        """Every component is ready."""
        return pb.ServerReadyResponse(ready=self.ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: N802
        """The version is loaded; without a version, the champion."""

        async def answer() -> pb.ModelReadyResponse:
            try:
                self._models.version(request.name, request.version or None)
            except ModelNotReady:
                return pb.ModelReadyResponse(ready=False)
            return pb.ModelReadyResponse(ready=True)

        return await self._guarded(context, request.name, answer)

    async def ServerMetadata(  # noqa: N802
        self, _request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """The server's name, version and extensions."""

        async def answer() -> pb.ServerMetadataResponse:
            return pb.ServerMetadataResponse(**server_metadata())

        return await self._guarded(context, "", answer)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """A model's inputs and outputs."""

        async def answer() -> pb.ModelMetadataResponse:
            model = self._models.version(request.name, request.version or None)
            arms = self._models.arms(request.name)
            return pb.ModelMetadataResponse(**model_metadata(model, sorted(arms.by_version) if arms else []))

        return await self._guarded(context, request.name, answer)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:  # noqa: N802
        """Answer one request."""

        async def answer() -> pb.ModelInferResponse:
            request_id = request.id or uuid.uuid4().hex
            choice = self._models.choose(request.model_name, request.model_version or None, request_id)
            rows = choice.model.inputs.rows(tensors_of(request), request_id)
            traceparent = _metadata(context, "traceparent")
            context_bytes = None if traceparent is None else traceparent.encode("latin-1")
            if wants_explanation(request):
                found = await self._predictions.explained(choice, rows, context_bytes)
            elif len(rows) <= SLICE_ROWS:
                found = self._predictions.answer(choice, rows, context_bytes)
            else:
                found = await self._predictions.answer_many(choice, rows, context_bytes)
            return response_of(request, found, request_id)

        return await self._guarded(context, request.model_name, answer)

    async def _guarded(
        self, context: Context, model: str, answer: Callable[[], Awaitable[Answered]]
    ) -> Answered:
        """The answer, or an error with the status that fits the mistake."""
        try:
            self._access.check_token(_metadata(context, "authorization"), model)
            return await answer()
        except Exception as error:  # noqa: BLE001  (told apart below)
            code, kind, message = _status(error)
            self._metrics.refused("grpc", kind)
        await context.abort(code, message)
        raise AssertionError("abort raises")


def _metadata(context: Context, name: str) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == name and isinstance(value, str):
            return value
    return None


def _status(error: Exception) -> tuple[Any, str, str]:
    match error:
        case InvalidInput():
            return grpc.StatusCode.INVALID_ARGUMENT, "invalid", str(error)
        case UnknownModel():
            return grpc.StatusCode.NOT_FOUND, "unknown-model", str(error.args[0])
        case ModelNotReady():
            return grpc.StatusCode.UNAVAILABLE, "not-ready", str(error)
        case Busy():
            return grpc.StatusCode.UNAVAILABLE, "busy", str(error)
        case Refused():
            return _CODES[error.status], error.kind, str(error)
    _log.error("a gRPC request failed: %s", one_line(error), exc_info=error)
    return (
        grpc.StatusCode.INTERNAL,
        "internal",
        "the request could not be answered; the service's log says why",
    )


class GrpcServer:
    """The gRPC server as a component."""

    name = "grpc"

    def __init__(self, service: InferenceService, *, host: str, port: int, max_message_bytes: int) -> None:
        self._service = service
        self._stop = asyncio.Event()
        self.ended = asyncio.Event()
        """Set when nothing is answered any more."""
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.so_reuseport", 0),  # a second process must not share the port unnoticed
            ]
        )
        self._health = self._add_services()
        self.port = _bind(self._server, host, port)

    async def run(self) -> None:
        """Serve until `stop`, then finish what is under way."""
        try:
            await self._server.start()
            _log.info("listening on port %d for gRPC", self.port)
            while not self._stop.is_set():
                await self._report()
            await self._health.enter_graceful_shutdown()
        finally:
            await self._server.stop(_GRACE_SECONDS)
            self.ended.set()

    def stop(self) -> None:
        """Accept no more; see `run`."""
        self._stop.set()

    def not_ready(self) -> str | None:
        """Ready unless it drains."""
        return "draining" if self._stop.is_set() else None

    def _add_services(self) -> health.aio.HealthServicer:
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(self._service, self._server)  # type: ignore[no-untyped-call]  # generated
        state = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(state, self._server)
        names: Sequence[str] = (_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        return state

    async def _report(self) -> None:
        """Keep grpc.health.v1 up to date, once a second."""
        status = health_pb2.HealthCheckResponse
        for service in ("", _SERVICE):
            await self._health.set(service, status.SERVING if self._service.ready() else status.NOT_SERVING)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), _HEALTH_SECONDS)


def _bind(server: Any, host: str, port: int) -> int:
    """Bind, and give the port that it is; ConfigurationError when it cannot be had."""
    try:
        return int(server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
    except RuntimeError as error:
        owner = owner_of(port)
        by = f" by {owner}" if owner else ""
        raise ConfigurationError(
            f"{host}:{port} is in use{by}", "Stop it, or set EVERLOOP_SERVING_GRPC_PORT"
        ) from error
