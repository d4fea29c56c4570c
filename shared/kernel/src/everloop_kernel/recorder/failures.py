"""What a failure of a transaction means: it may pass, it is the data's fault, or the process must end."""

from typing import Final

import asyncpg
from asyncpg import exceptions as pg

from everloop_kernel.errors import PermanentError, one_line

__all__ = ["TRANSIENT", "is_transient", "permanent"]

TRANSIENT: Final[tuple[type[BaseException], ...]] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,  # the connection was lost or closed under us
    asyncpg.InternalClientError,  # the same, seen from asyncpg's own state machine
    pg.PostgresConnectionError,
    pg.CannotConnectNowError,
    pg.OperatorInterventionError,  # the server restarts
    pg.IdleInTransactionSessionTimeoutError,
    pg.InsufficientResourcesError,  # too many connections, disk full
    pg.TransactionRollbackError,  # deadlock, serialization
    pg.LockNotAvailableError,
)
"""Worth trying again on a new connection: the transaction had no effect, or all of it (the offset tells)."""


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help."""
    return isinstance(error, TRANSIENT) and permanent(error) is None


def permanent(error: BaseException) -> PermanentError | None:
    """The error as the message's own fault, if it is: a handler said so, or Postgres cannot store it.

    A NUL in a text or a number out of range would otherwise stop the service at each start.
    """
    if isinstance(error, PermanentError):
        return error
    refused_by_client = isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)
    if refused_by_client or isinstance(error, pg.DataError):
        return PermanentError("unstorable", f"PostgreSQL cannot store it: {one_line(error)}")
    return None
