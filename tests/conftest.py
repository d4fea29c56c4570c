"""Fixtures of all tests: a real Kafka and a real PostgreSQL, started at the first test that asks."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import stack as shared  # type: ignore[import-not-found]  # beside this file
from everloop.embedded import Kafka
from hypothesis import HealthCheck, settings

# a busy machine is slow: that is no failure of what a property says
settings.register_profile("everloop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("everloop")


def pytest_configure(config: pytest.Config) -> None:
    """The main process names the folder in which its workers find the servers."""
    if not _is_worker(config):
        os.environ[shared.FOLDER_VARIABLE] = tempfile.mkdtemp(prefix="everloop-tests-")
        os.environ[shared.OWNER_VARIABLE] = str(os.getpid())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Whatever the tests did, the servers stop and their data goes."""
    if not _is_worker(config) and shared.FOLDER_VARIABLE in os.environ:
        folder = Path(os.environ.pop(shared.FOLDER_VARIABLE))
        shared.stop_shared_stack(folder)
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that wait for processes begin first; those that only compute fill the time between."""
    items.sort(key=lambda item: item.get_closest_marker("integration") is None)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.fixture(scope="session")
def stack() -> shared.Addresses:
    """Both servers: `.bootstrap_servers` and `.dsn`."""
    return shared.shared_stack()


@pytest.fixture(scope="session")
def kafka(stack: shared.Addresses) -> shared.KafkaAddress:
    """The shared broker: give topics and groups names of `unique`."""
    return shared.KafkaAddress(stack.bootstrap_servers)


@pytest.fixture(scope="module")
def postgres(stack: shared.Addresses) -> Iterator[shared.Database]:
    """An empty database for this module alone, dropped after it."""
    name = shared.unique("test")
    asyncio.run(_execute(stack.dsn, f'CREATE DATABASE "{name}"'))
    yield shared.Database(stack.dsn.rsplit("/", 1)[0] + "/" + name)
    asyncio.run(_drop(stack.dsn, name))


@pytest.fixture(scope="module")
def service_env(kafka: shared.KafkaAddress, postgres: shared.Database) -> dict[str, str]:
    """The environment of a service started as a child process."""
    return {
        **os.environ,
        "EVERLOOP_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "EVERLOOP_POSTGRES_DSN": postgres.dsn,
    }


@pytest.fixture(scope="session")
def unique():
    """`unique("orders")` is a name that no other test takes, such as `orders-1f0c9a3b`."""
    return shared.unique


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A broker of this test alone, to be killed (`own_kafka.child.signal(9)`) and started again."""
    with Kafka(tmp_path / "kafka", port=0) as broker:
        yield broker


async def _drop(dsn: str, name: str) -> None:
    """Ends our own sessions first: FORCE may not end a worker of autovacuum, a plain DROP waits for it."""
    ours = "datname = $1 AND usename = current_user"
    await _execute(dsn, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}", name)
    await _execute(dsn, f'DROP DATABASE "{name}"')


async def _execute(dsn: str, sql: str, *arguments: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql, *arguments)
    finally:
        await connection.close()
