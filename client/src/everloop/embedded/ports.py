"""Ports on the loopback: free ones, and whose the taken ones are."""

import contextlib
import random
import socket
from itertools import cycle, islice

import psutil

from everloop.errors import EverloopError

__all__ = ["free_port", "owner", "require_free"]

_LOOPBACK = "127.0.0.1"
_PORTS = range(15_000, 32_000)
"""Below those that systems give to outgoing connections: one of these would take a port before its server."""
_order = cycle(random.SystemRandom().sample(_PORTS, len(_PORTS)))
"""Two servers of a stack must not be given the same port, though neither listens yet."""


def free_port() -> int:
    """A port that nobody listens on now and no outgoing connection will take; each call gives another."""
    for port in islice(_order, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_LOOPBACK, port))
            return port
    raise EverloopError(f"No port of {_PORTS.start} to {_PORTS.stop - 1} is free.", "Stop what holds them.")


def owner(port: int) -> str:
    """Who listens on a port, in words; says so when the system does not tell."""
    with contextlib.suppress(psutil.AccessDenied):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return _describe(connection.pid)
    return "another user's process"


def require_free(port: int, purpose: str, setting: str, host: str = _LOOPBACK) -> None:
    """Raise an error that names the owner of a taken port and the setting that chooses another."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise EverloopError(
                f"Port {port}, wanted for {purpose}, is in use by {owner(port)}.",
                f"Stop that process, or choose another port with {setting}.",
            ) from error


def _describe(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"{process.name()} (pid {pid}: {' '.join(process.cmdline())[:120]})"
    except psutil.Error:
        return f"pid {pid}"
