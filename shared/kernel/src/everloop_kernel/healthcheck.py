"""`python3 -m everloop_kernel.healthcheck`: exit code 0 when the service in this container is ready, else 1.

It asks the process next to it, named by EVERLOOP_SERVICE, on the port that its own variable sets. A container
engine calls it every few seconds, so it loads nothing but the standard library.
"""

import http.client
import importlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Final

__all__ = ["main", "port_of", "why_not_ready"]

_SECONDS: Final = 2.0
_READY: Final = 200


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Say why not, on standard error, where the engine keeps it."""
    service = environment.get("EVERLOOP_SERVICE")
    if not service:
        reason: str | None = "EVERLOOP_SERVICE does not name the service to ask"
    else:
        reason = why_not_ready(port_of(service, environment))
    if reason:
        sys.stderr.write(f"{reason}\n")
    return 1 if reason else 0


def port_of(service: str, environment: Mapping[str, str]) -> int:
    """The service's HTTP port: as its variable says, else as its settings do."""
    chosen = environment.get(f"EVERLOOP_{service.upper()}_HTTP_PORT")
    if chosen:
        return int(chosen)
    settings = importlib.import_module(f"everloop_{service}.settings")
    return int(getattr(settings, f"{service.capitalize()}Settings")().http_port)


def why_not_ready(port: int) -> str | None:
    """None when the service says that it is ready, else what it says instead."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"nothing answers on port {port}: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if answer.status == _READY else _reasons(body)


def _reasons(body: bytes) -> str:
    try:
        reports = json.loads(body)["components"]
        waiting = [f"{one['name']}: {one['reason']}" for one in reports if not one["ready"]]
    except (ValueError, KeyError, TypeError):
        waiting = []
    return "; ".join(waiting) or body[:300].decode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main())
