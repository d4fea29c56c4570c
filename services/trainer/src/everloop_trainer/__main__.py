"""Wiring: `python -m everloop_trainer`."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from everloop_kernel.recorder import OutboxRelay, Recorder, migrate, open_pool, transaction
from everloop_kernel.service import Component, main, serve
from everloop_kernel.settings import KafkaSettings, PlatformSettings, PostgresSettings

from everloop_trainer.adapters.artifact_files import ArtifactFiles
from everloop_trainer.adapters.book import PostgresBook
from everloop_trainer.adapters.ledger import RunLedger
from everloop_trainer.adapters.processes import TrainingProcesses
from everloop_trainer.adapters.raw_log import KafkaLogs
from everloop_trainer.adapters.segment_store import SegmentStore
from everloop_trainer.adapters.work import RUNS_CHANNEL, PostgresWork
from everloop_trainer.entrypoints.http import Api, routes
from everloop_trainer.entrypoints.kafka import subscriptions
from everloop_trainer.entrypoints.loops import RunLoop, SegmentLoop
from everloop_trainer.settings import TrainerSettings

SERVICE = "trainer"


async def run() -> int:
    """Start the trainer; returns the process's exit code."""
    settings, platform, kafka, postgres = (
        TrainerSettings(),
        PlatformSettings(),
        KafkaSettings(),
        PostgresSettings(),
    )
    root = platform.data_dir.absolute() / "trainer"
    await migrate(postgres.dsn, SERVICE)
    pool = await open_pool(postgres, SERVICE)
    listener = await pool.acquire()

    async def listen(ring: Callable[[], None]) -> None:
        await listener.add_listener(RUNS_CHANNEL, lambda *_: ring())

    @asynccontextmanager
    async def begin() -> AsyncIterator[PostgresWork]:
        async with transaction(pool, SERVICE) as work:
            yield PostgresWork(work)

    segments = SegmentStore(pool, root, settings.segment_rows)
    trainings = TrainingProcesses(root)
    ledger = RunLedger(pool, SERVICE, settings.lease_seconds)
    segment_loop = SegmentLoop(segments)
    components: list[Component] = [
        Recorder(SERVICE, kafka, pool, platform, subscriptions(PostgresWork, segment_loop.bell.ring)),
        OutboxRelay(SERVICE, kafka, pool, platform),
        segment_loop,
        RunLoop(
            ledger,
            segments,
            trainings,
            ArtifactFiles(root, kafka),
            renew_seconds=settings.lease_seconds / 3,
            listen=listen,
        ),
    ]
    api = Api(begin, PostgresBook(pool, root), KafkaLogs(kafka, root), trainings)
    try:
        return await serve(SERVICE, components, platform=platform, http=settings, routes=routes(api))
    finally:
        pool.terminate()


if __name__ == "__main__":
    main(run)
