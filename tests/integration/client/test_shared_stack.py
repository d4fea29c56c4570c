"""The fixtures that every other test stands on."""

import asyncio

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

pytestmark = pytest.mark.integration


async def test_kafka_accepts_a_topic(kafka, unique) -> None:
    """Without a broker no test of the platform means anything."""
    name = unique("topic")
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 2, 1)])
        async with asyncio.timeout(10):  # the broker knows it a moment later
            while name not in await admin.list_topics():  # noqa: ASYNC110  (Kafka tells nobody)
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def test_database_is_empty_and_syncs(postgres) -> None:
    """A module must not see what another one left, and the database must be as durable as in production."""
    connection = await asyncpg.connect(postgres.dsn)
    try:
        assert await connection.fetchval("SHOW fsync") == "on"
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    finally:
        await connection.close()
