"""Wiring: `python -m everloop_registry`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from everloop_kernel.recorder import OutboxRelay, Recorder, migrate, open_pool, transaction
from everloop_kernel.service import Component, main, serve
from everloop_kernel.settings import KafkaSettings, PlatformSettings, PostgresSettings

from everloop_registry.adapters.artifacts import KafkaArtifacts
from everloop_registry.adapters.postgres import PostgresWork
from everloop_registry.adapters.signing_key import SigningKey
from everloop_registry.adapters.topics import KafkaTopics
from everloop_registry.application.ports import Office
from everloop_registry.entrypoints.http import Api, routes
from everloop_registry.entrypoints.kafka import subscription
from everloop_registry.settings import RegistrySettings

SERVICE = "registry"


async def run() -> int:
    """Start the registry; returns the process's exit code."""
    settings, platform, kafka, postgres = (
        RegistrySettings(),
        PlatformSettings(),
        KafkaSettings(),
        PostgresSettings(),
    )
    key = SigningKey.open(platform.data_dir)
    office = Office(key, KafkaArtifacts(kafka, settings.artifact_timeout_seconds), _now)
    await migrate(postgres.dsn, SERVICE)
    pool = await open_pool(postgres, SERVICE)

    @asynccontextmanager
    async def begin() -> AsyncIterator[PostgresWork]:
        async with transaction(pool, SERVICE) as work:
            yield PostgresWork(work)

    api = Api(begin, office, KafkaTopics(kafka), {key.key_id: key.public_bytes.hex()})
    components: list[Component] = [
        Recorder(SERVICE, kafka, pool, platform, [subscription(office, PostgresWork)]),
        OutboxRelay(SERVICE, kafka, pool),
    ]
    try:
        return await serve(SERVICE, components, platform=platform, http=settings, routes=routes(api))
    finally:
        await pool.close()


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main(run)
