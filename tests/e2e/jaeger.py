"""A real Jaeger, built once with Go into the user's cache and started for a test.

Its modules are held against hashes: ours for Jaeger itself, Jaeger's own go.sum for everything below it.
"""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml
from everloop.embedded.children import Child, Program, wait_until_ready
from everloop.embedded.ports import free_port

VERSION = "v1.76.0"  # Jaeger v2's code under the module's old name
MODULE = "github.com/jaegertracing/jaeger"
MODULE_FILE = f"""module everloop.invalid/jaeger

go 1.24.0

require {MODULE} {VERSION}

replace github.com/Shopify/sarama => github.com/Shopify/sarama v1.33.0
"""
PINS = f"""{MODULE} {VERSION} h1:sWCOOF1dr+NL0PLil7mFo3BqqQL8k4WiM7aguFbc14g=
{MODULE} {VERSION}/go.mod h1:hqcuJlLDTv7G2x5eFd/BhwcPdLxj3N+90aKhIzdOcKo=
"""
_BUILD_SECONDS = 1800
_START_SECONDS = 30.0


class CannotBuildError(Exception):
    """Jaeger cannot be had on this machine; the message says why."""


def jaeger_binary() -> Path:
    """The program, built at the first call: about four minutes on two cores, 85 MB."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base.absolute() / "everloop" / f"jaeger-{VERSION}"
    program = folder / "jaeger"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise CannotBuildError("`go` is not installed: Jaeger is built with it (https://go.dev/dl)")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build(go, program)
    return program


def _build(go: str, program: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="everloop-jaeger-") as place:
        folder = Path(place)
        (folder / "go.mod").write_text(MODULE_FILE)
        (folder / "go.sum").write_text(PINS)
        found = json.loads(_go(go, folder, "mod", "download", "-json", f"{MODULE}@{VERSION}"))
        (folder / "go.sum").write_text(PINS + (Path(found["Dir"]) / "go.sum").read_text())
        _go(go, folder, "mod", "download")
        fresh = program.with_suffix(".new")
        _go(go, folder, "build", "-mod=mod", "-trimpath", "-o", str(fresh), f"{MODULE}/cmd/jaeger")
        fresh.replace(program)


def _go(go: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [go, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=_BUILD_SECONDS
    )
    if done.returncode:
        raise CannotBuildError(f"go {' '.join(arguments[:2])} failed: {done.stderr[-2000:]}")
    return done.stdout


class Jaeger:
    """A running Jaeger: spans go to `endpoint`, traces are read from its query API."""

    def __init__(self, otlp_port: int, query_port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{otlp_port}"
        self._query = f"http://127.0.0.1:{query_port}"

    def trace(self, trace_id: str, patience_seconds: float = 20.0) -> dict:
        """One trace as `/api/traces/{id}` gives it: `spans`, each with `references`, and `processes`."""
        until = time.monotonic() + patience_seconds
        while True:
            answer = httpx.get(f"{self._query}/api/traces/{trace_id}", timeout=10)
            if answer.is_success and answer.json()["data"]:
                return answer.json()["data"][0]
            assert time.monotonic() < until, f"Jaeger has no trace {trace_id}: {answer.text[:300]}"
            time.sleep(0.2)

    def answers(self) -> bool:
        """Whether its API is there."""
        try:
            return httpx.get(f"{self._query}/api/services", timeout=2).is_success
        except httpx.HTTPError:
            return False


@contextmanager
def running_jaeger(folder: Path) -> Iterator[Jaeger]:
    """Start Jaeger with its traces in memory; it is stopped at the block's end."""
    ports = [free_port() for _ in range(4)]
    settings = folder / "jaeger.yaml"
    settings.write_text(yaml.safe_dump(_settings(*ports)))
    program = Program(
        "jaeger",
        [str(jaeger_binary()), "--config", str(settings)],
        log=folder / "jaeger.log",
        pid_file=folder / "jaeger.pid",
    )
    jaeger = Jaeger(ports[0], ports[1])
    child = Child(program)
    try:
        wait_until_ready(child, jaeger.answers, _START_SECONDS)
        yield jaeger
    finally:
        child.stop()


def _settings(otlp_port: int, query_port: int, grpc_port: int, health_port: int) -> dict:
    """Receiver → memory → query, all on the loopback."""
    here = "127.0.0.1"
    return {
        "extensions": {
            "healthcheckv2": {"use_v2": True, "http": {"endpoint": f"{here}:{health_port}"}},
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 100_000}}}},
            "jaeger_query": {
                "storage": {"traces": "memory"},
                "http": {"endpoint": f"{here}:{query_port}"},
                "grpc": {"endpoint": f"{here}:{grpc_port}"},
            },
        },
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"{here}:{otlp_port}"}}}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
        "service": {
            "extensions": ["healthcheckv2", "jaeger_storage", "jaeger_query"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
        },
    }
