"""`python -m everloop_ingest`: the worker and the HTTP edge in one process."""

import gc
from collections.abc import Sequence

from everloop_kernel.auth import Tokens, check_bind
from everloop_kernel.health import Health
from everloop_kernel.http_routes import Route, Router
from everloop_kernel.http_server import HttpServer, Limits
from everloop_kernel.service import Component, main, serve
from everloop_kernel.settings import KafkaSettings, PlatformSettings

from everloop_ingest.adapters.inbound import InboundPublisher
from everloop_ingest.adapters.pipelines import Pipelines
from everloop_ingest.adapters.quality_tables import Measured, Profiles
from everloop_ingest.application import names
from everloop_ingest.entrypoints.body import Budget
from everloop_ingest.entrypoints.http import Edge
from everloop_ingest.entrypoints.idempotency import Remembered
from everloop_ingest.entrypoints.quality import QualityPages, judge, quality_routes
from everloop_ingest.entrypoints.worker import worker
from everloop_ingest.settings import IngestSettings

_GC_THRESHOLDS = (50_000, 20, 100)
"""A batch's objects live and die together: Python's default of 700 would look at them again and again."""


async def run() -> int:
    """Wire and serve."""
    gc.set_threshold(*_GC_THRESHOLDS)
    settings, platform, kafka = IngestSettings(), PlatformSettings(), KafkaSettings()
    pipelines, profiles, measured = Pipelines(kafka), Profiles(kafka), Measured(kafka)
    publisher = InboundPublisher(kafka, platform, most_bytes=settings.max_waiting_bytes)
    components: list[Component] = [pipelines.table, profiles.table, measured.table, publisher]

    async def all_known() -> None:
        await pipelines.table.wait_caught_up()
        await profiles.table.wait_caught_up()

    if settings.worker:
        processor = worker(kafka, platform, pipelines.wait_for, pipelines.get, profiles.get)
        pipelines.on_new(lambda pipeline: processor.reopen(f"{names.INBOUND}.{pipeline}"))
        components += [processor, judge(kafka, platform, pipelines.get, profiles.get, all_known)]
    edge = Edge(
        get=pipelines.get,
        knows_all=pipelines.table.caught_up.is_set,
        publish=publisher.publish,
        max_body_bytes=settings.max_body_bytes,
        budget=Budget(settings.max_bodies_bytes),
        remembered=Remembered(settings.idempotency_bytes, settings.idempotency_seconds),
    )
    pages = QualityPages(pipelines.get, profiles.get, measured.of, publisher.publish)
    routes = [*edge.routes(), *quality_routes(pages)]
    front = _server(settings, platform, routes, components)
    return await serve("ingest", components, platform=platform, http=None, front=front)


def _server(
    settings: IngestSettings, platform: PlatformSettings, routes: Sequence[Route], components: list[Component]
) -> HttpServer:
    tokens = Tokens(platform.tokens_file)
    check_bind(settings.http_host, tokens, settings.variable("http_host"))
    router = Router(routes, tokens, Health(components))
    limits = Limits(connections=settings.max_connections)
    return HttpServer(settings, router, limits, streamed=router.streamed)


if __name__ == "__main__":
    main(run)
