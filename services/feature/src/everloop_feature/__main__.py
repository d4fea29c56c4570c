"""Wiring: `python -m everloop_feature`."""

import gc

from everloop_kernel.service import main, serve
from everloop_kernel.settings import KafkaSettings, PlatformSettings
from everloop_kernel.stream import StreamProcessor
from everloop_kernel.table import Table
from everloop_schemas.events import RecordAccepted
from everloop_schemas.topics import TOPICS

from everloop_feature import metrics
from everloop_feature.adapters.opening import TaskOpener
from everloop_feature.application.pipelines import Pipelines
from everloop_feature.entrypoints.decisions import TOPICS_READ, Decisions
from everloop_feature.settings import FeatureSettings

SERVICE = "feature"
GROUP = "everloop-feature"


async def run() -> int:
    """Start the service; returns the process's exit code."""
    # records and state are many small containers without cycles: looking for cycles less often saves 13%
    gc.set_threshold(50_000, 20, 100)
    settings, platform, kafka = FeatureSettings(), PlatformSettings(), KafkaSettings()
    log = TOPICS[RecordAccepted.topic]
    pipelines = Pipelines(
        changed=lambda name: processor.reopen(log.topic_for(name)),
        accept_partial=settings.accept_partial_state,
    )
    decisions = Table(kafka, TOPICS_READ, on_change=Decisions(pipelines), name="the registry's decisions")
    processor = StreamProcessor(
        kafka=kafka,
        platform=platform,
        group=GROUP,
        pattern=log.pattern,
        open_task=TaskOpener(pipelines, decisions, settings.unknown_pipeline_seconds),
        max_records=settings.max_records,
        replay_share=settings.replay_share,
    )
    metrics.REPLAY_SHARE.set(settings.replay_share)
    return await serve(SERVICE, [decisions, processor], platform=platform, http=settings)


if __name__ == "__main__":
    main(run)
