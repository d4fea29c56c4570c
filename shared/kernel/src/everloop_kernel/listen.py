"""Binding a service's port, with an error that names the port's owner and the setting to change."""

import errno
import os
import socket
from pathlib import Path
from typing import Final

from everloop_kernel.errors import ConfigurationError
from everloop_kernel.settings import HttpSettings

__all__ = ["bind", "owner_of"]

_LISTENING: Final = "0A"
_BACKLOG: Final = 1024


def bind(http: HttpSettings) -> socket.socket:
    """A listening socket; raises ConfigurationError when the address cannot be had."""
    try:
        family = socket.getaddrinfo(http.http_host, http.http_port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((http.http_host, http.http_port))
        listener.listen(_BACKLOG)
    except OSError as error:
        raise _unusable(http, error) from error
    listener.setblocking(False)  # noqa: FBT003  (the standard library's signature)
    return listener


def _unusable(http: HttpSettings, error: OSError) -> ConfigurationError:
    where = f"{http.http_host}:{http.http_port}"
    if error.errno != errno.EADDRINUSE:
        return ConfigurationError(
            f"cannot listen on {where}: {error.strerror or error}", f"Change {http.variable('http_host')}"
        )
    owner = owner_of(http.http_port)
    by = f" by {owner}" if owner else ""
    return ConfigurationError(f"{where} is in use{by}", f"Stop it, or set {http.variable('http_port')}")


def owner_of(port: int) -> str | None:
    """`process <id> (<command>)` that listens on a local TCP port, where the system lets us see it."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    for process in Path("/proc").glob("[0-9]*") if wanted else ():
        try:
            if any(os.readlink(link) in wanted for link in (process / "fd").iterdir()):  # noqa: PTH115
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue  # ended meanwhile, or another user's
    return None


def _inodes(port: int) -> set[str]:
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            columns = line.split()
            if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                found.add(columns[9])
    return found
