"""`python -m everloop_ingest`: the worker and the HTTP edge in one process."""

import gc

from everloop_kernel.service import Component, main, serve
from everloop_kernel.settings import KafkaSettings, PlatformSettings

from everloop_ingest.adapters.inbound import InboundPublisher
from everloop_ingest.adapters.pipelines import Pipelines
from everloop_ingest.adapters.quality_tables import Measured, Profiles
from everloop_ingest.application import names
from everloop_ingest.entrypoints.body import Budget
from everloop_ingest.entrypoints.http import Edge, routes
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
    publisher = InboundPublisher(kafka, platform)
    processor = worker(kafka, platform, pipelines.wait_for, pipelines.get, profiles.get)
    pipelines.on_new(lambda pipeline: processor.reopen(f"{names.INBOUND}.{pipeline}"))
    edge = Edge(
        get=pipelines.get,
        knows_all=pipelines.table.caught_up.is_set,
        publish=publisher.publish,
        max_body_bytes=settings.max_body_bytes,
        budget=Budget(settings.max_bodies_bytes),
    )

    async def all_known() -> None:
        await pipelines.table.wait_caught_up()
        await profiles.table.wait_caught_up()

    judging = judge(kafka, platform, pipelines.get, profiles.get, all_known)
    pages = QualityPages(pipelines.get, profiles.get, measured.of, publisher.publish)
    tables = [pipelines.table, profiles.table, measured.table]
    components: list[Component] = [*tables, publisher, processor, judging]
    pages_and_edge = [*routes(edge), *quality_routes(pages)]
    return await serve("ingest", components, platform=platform, http=settings, routes=pages_and_edge)


if __name__ == "__main__":
    main(run)
