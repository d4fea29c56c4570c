"""Connections to a service's schema, safe against a process that stops in the middle of a transaction."""

import logging
from typing import Any, Final

import asyncpg
from tenacity import retry_if_exception

from everloop_kernel.errors import ConfigurationError, one_line
from everloop_kernel.kafka import retrying
from everloop_kernel.recorder.failures import TRANSIENT, is_transient
from everloop_kernel.settings import PostgresSettings

__all__ = ["IDLE_IN_TRANSACTION_SECONDS", "connect", "open_pool"]

IDLE_IN_TRANSACTION_SECONDS: Final = 10
"""After this, the server ends a stopped process's transaction, whose locks would block its successor."""
_START_SECONDS: Final = 30.0
_STATEMENT_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


def server_settings(service: str) -> dict[str, str]:
    """What every session of `service` sets."""
    return {
        "application_name": f"everloop-{service}",
        "search_path": service,
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
        "client_connection_check_interval": "5s",
    }


async def connect(dsn: str, service: str, **settings: str) -> Any:
    """One asyncpg connection; waits a while for a database that is still starting.

    Raises ConfigurationError when there is none, with what to do.
    """
    return await _patiently(
        asyncpg.connect, dsn, server_settings={**server_settings(service), **settings}, command_timeout=None
    )


async def open_pool(postgres: PostgresSettings, service: str) -> Any:
    """An asyncpg pool whose connections live in the schema `service`. Close it when the process ends."""
    return await _patiently(
        asyncpg.create_pool,
        postgres.dsn,
        min_size=1,
        max_size=postgres.pool_size,
        max_inactive_connection_lifetime=300,
        command_timeout=_STATEMENT_SECONDS,
        server_settings=server_settings(service),
    )


async def _patiently(connect_with: Any, dsn: str, **options: Any) -> Any:
    try:
        async for attempt in retrying(_START_SECONDS, retry=retry_if_exception(is_transient)):
            with attempt:
                return await connect_with(dsn, **options)
    except (*TRANSIENT, asyncpg.PostgresError, ValueError) as error:
        raise ConfigurationError(
            f"PostgreSQL cannot be used: {one_line(error)}", "Start it, or correct EVERLOOP_POSTGRES_DSN"
        ) from error
    raise AssertionError("unreachable")
