"""Which database failures may pass by themselves."""

from typing import Final

import asyncpg
from asyncpg import exceptions as pg

__all__ = ["TRANSIENT"]

TRANSIENT: Final[tuple[type[BaseException], ...]] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,  # the connection was lost or closed under us
    asyncpg.InternalClientError,  # the same, seen from asyncpg's own state machine
    pg.PostgresConnectionError,
    pg.CannotConnectNowError,
    pg.OperatorInterventionError,  # the server restarts
    pg.IdleInTransactionSessionTimeoutError,
    pg.IdleSessionTimeoutError,
    pg.InsufficientResourcesError,  # too many connections, disk full
    pg.TransactionRollbackError,  # deadlock, serialization
    pg.LockNotAvailableError,
)
"""Worth trying again on a new connection: the transaction had no effect, or all of it (the offset tells)."""
