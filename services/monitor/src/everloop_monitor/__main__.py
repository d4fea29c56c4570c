"""Wiring: `python -m everloop_monitor`."""

from everloop_kernel.recorder import OutboxRelay, Recorder, migrate, open_pool, transaction
from everloop_kernel.service import Component, main, serve
from everloop_kernel.settings import KafkaSettings, PlatformSettings, PostgresSettings

from everloop_monitor.adapters.postgres import PostgresWork
from everloop_monitor.adapters.reports import Reports
from everloop_monitor.application.judge import judge_champions
from everloop_monitor.entrypoints.http import routes
from everloop_monitor.entrypoints.judging import Judging
from everloop_monitor.entrypoints.kafka import Handlers
from everloop_monitor.settings import MonitorSettings

SERVICE = "monitor"


async def run() -> int:
    """Start the monitor; returns the process's exit code."""
    settings, platform, kafka, postgres = (
        MonitorSettings(),
        PlatformSettings(),
        KafkaSettings(),
        PostgresSettings(),
    )
    await migrate(postgres.dsn, SERVICE)
    pool = await open_pool(postgres, SERVICE)

    async def judge() -> None:
        async with transaction(pool, SERVICE) as work:
            await judge_champions(PostgresWork(work))

    judging = Judging(judge)
    handlers = Handlers(PostgresWork, judging.notice)
    components: list[Component] = [
        Recorder(SERVICE, kafka, pool, platform, handlers.subscriptions()),
        OutboxRelay(SERVICE, kafka, pool),
        judging,
    ]
    try:
        return await serve(
            SERVICE, components, platform=platform, http=settings, routes=routes(Reports(pool))
        )
    finally:
        await pool.close()


if __name__ == "__main__":
    main(run)
