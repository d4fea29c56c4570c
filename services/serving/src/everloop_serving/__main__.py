"""Wiring: `python -m everloop_serving`."""

import asyncio
import gc
import uuid

from everloop_kernel.auth import Tokens, check_bind
from everloop_kernel.http_server import HttpServer, Limits
from everloop_kernel.service import Component, main, serve
from everloop_kernel.settings import KafkaSettings, PlatformSettings
from everloop_kernel.table import Table
from everloop_schemas.topics import TOPICS
from prometheus_client import REGISTRY

from everloop_serving.adapters.artifact_source import ArtifactSource
from everloop_serving.adapters.event_publisher import KafkaPublisher
from everloop_serving.adapters.files import DeploymentFiles, Home, ModelCache
from everloop_serving.adapters.lightgbm_engine import Booster, Explainer
from everloop_serving.adapters.lignum_engine import FastTrees
from everloop_serving.adapters.online_state import OnlineStates
from everloop_serving.adapters.sandbox import Sandbox
from everloop_serving.adapters.spool import DiskSpool
from everloop_serving.adapters.trusted_keys import TrustedKeys
from everloop_serving.application.load_model import ModelLoader
from everloop_serving.application.models import Models
from everloop_serving.application.predict import Predictions
from everloop_serving.application.prediction_events import EventWriter
from everloop_serving.application.prediction_log import PredictionLog
from everloop_serving.application.rollout import Rollout
from everloop_serving.application.swap import Swap
from everloop_serving.entrypoints.access import Access
from everloop_serving.entrypoints.errors import Errors, error_response
from everloop_serving.entrypoints.grpc_server import GrpcServer, InferenceService
from everloop_serving.entrypoints.http_routes import Reporting, Routes
from everloop_serving.entrypoints.infer_http import Inference
from everloop_serving.metrics import HotMetrics
from everloop_serving.settings import ServingSettings

SERVICE = "serving"
_YOUNG_OBJECTS = 50_000
"""Objects that the collector waits for. Events wait for Kafka by the thousand and then go all together: at
Python's 700 it walked them a hundred times a second, and at times all state, for up to 60 ms.
"""


class Wiring:
    """The process's parts, put together from its settings."""

    def __init__(self, settings: ServingSettings, platform: PlatformSettings, kafka: KafkaSettings) -> None:
        self._settings = settings
        self._platform = platform
        self._kafka = kafka
        self._home = Home(platform.data_dir / SERVICE)
        self._instance = self._home.instance(settings.instance)
        self._models = Models()
        self._metrics = HotMetrics()
        self._publisher = KafkaPublisher(kafka, self._instance)
        self._states = OnlineStates(kafka, wait_seconds=settings.state_wait_seconds)
        self._reporting: list[Reporting] = []
        """What readiness depends on: not Kafka, for answers do not need it."""

    def components(self) -> list[Component]:
        """Everything that runs."""
        writer = EventWriter(self._instance)
        access = self._access()
        ended: list[asyncio.Event] = []
        log = PredictionLog(
            self._publisher,
            DiskSpool(self._home.folder / "spool", limit_bytes=self._settings.spool_bytes),
            life=uuid.uuid4().hex,
            linger_seconds=self._settings.publish_linger_seconds,
            most_in_memory=self._settings.queue_events,
            writers_ended=ended,
        )
        predictions = Predictions(writer, log.append, self._metrics)
        rollout, table = self._rollout(writer, log)
        self._reporting += [self._states, rollout]
        http = self._http(predictions, access)
        servers: list[HttpServer | GrpcServer] = [http]
        if self._settings.grpc_port is not None:
            servers.append(self._grpc(predictions, access, self._settings.grpc_port))
        self._reporting += servers
        ended += [server.ended for server in servers]
        self._register(log, http)
        return [table, self._states, rollout, log, *servers]

    def _access(self) -> Access:
        tokens = Tokens(self._platform.tokens_file)
        check_bind(self._settings.http_host, tokens, self._settings.variable("http_host"))
        return Access(tokens)

    def _rollout(self, writer: EventWriter, log: PredictionLog) -> tuple[Rollout, Table]:
        cache = ModelCache(self._home.folder / "models")
        loader = ModelLoader(
            artifacts=ArtifactSource(self._kafka, cache),
            sandbox=Sandbox(
                wall_seconds=self._settings.load_seconds, fast_engine=self._settings.engine == "auto"
            ),
            engine=Booster,
            fast_engine=FastTrees,
            explainer=Explainer,
            states=self._states,
            most_rows=self._settings.max_rows,
        )
        swap = Swap(
            self._models,
            loader,
            states=self._states,
            cache=cache,
            writer=writer,
            publish=log.append,
            expect=self._publisher.expect,
            instance=self._instance,
        )
        keys = self._settings.trusted_keys_dir or self._platform.data_dir / "keys"
        rollout = Rollout(
            self._models,
            swap,
            keys=TrustedKeys(keys),
            deployments=DeploymentFiles(self._home.folder / "deployments"),
            deployments_read=lambda: table.caught_up.is_set(),  # noqa: PLW0108  (made below)
        )
        topic = TOPICS["registry-deployment-changed-v1"].topic_for(None)
        table = Table(self._kafka, [topic], on_change=rollout.offer, name="deployments")
        return rollout, table

    def _http(self, predictions: Predictions, access: Access) -> HttpServer:
        errors = Errors(self._metrics)
        inference = Inference(self._models, predictions, errors)
        routes = Routes(
            self._models,
            inference,
            access,
            errors,
            components=self._reporting,
            metrics=self._metrics,
            most_body_bytes=self._settings.max_body_bytes,
        )
        limits = Limits(
            body_bytes=self._settings.max_body_bytes,
            request_seconds=self._settings.request_seconds,
            connections=self._settings.max_connections,
        )
        return HttpServer(self._settings, routes, limits, refusal=error_response)

    def _grpc(self, predictions: Predictions, access: Access, port: int) -> GrpcServer:
        service = InferenceService(self._models, predictions, access, self._metrics, self._is_ready)
        return GrpcServer(
            service,
            host=self._settings.http_host,
            port=port,
            max_message_bytes=self._settings.max_body_bytes,
        )

    def _is_ready(self) -> bool:
        return all(component.not_ready() is None for component in self._reporting)

    def _register(self, log: PredictionLog, http: HttpServer) -> None:
        gauges = self._metrics.gauges
        gauges["everloop_serving_queued_events"] = ("Events in memory, to be published", lambda: log.queued)
        gauges["everloop_serving_connections"] = ("Open HTTP connections", lambda: http.connections)
        self._metrics.state_ages = self._states.ages
        REGISTRY.register(self._metrics)


async def run() -> int:
    """Start serving; returns the process's exit code."""
    components = Wiring(ServingSettings(), PlatformSettings(), KafkaSettings()).components()
    gc.collect()
    gc.freeze()  # what stands now stays: the collector need not look at it again and again
    gc.set_threshold(_YOUNG_OBJECTS)
    return await serve(SERVICE, components, platform=PlatformSettings(), http=None)


if __name__ == "__main__":
    main(run)
