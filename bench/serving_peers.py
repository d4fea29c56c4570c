"""The peers of serving: each in an environment of its own, on core 0, with the same model.

They are given ready features and record nothing; Everloop is given raw fields, computes the features from its
state and publishes each prediction.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import load
import psutil
import rig

__all__ = ["PEERS", "Peer", "running", "tree_cpu_seconds", "tree_memory_bytes"]

SCRIPTS = Path(__file__).parent / "peers"
PATIENCE_SECONDS = 120.0
Matrix = Sequence[Sequence[float | None]]


def oip_body(rows: Matrix, number: int) -> dict:
    """One tensor of all features, as the protocol's servers take a feature matrix."""
    flat = [value for row in rows for value in row]
    tensor = {"name": "row", "datatype": "FP64", "shape": [len(rows), len(rows[0])], "data": flat}
    return {"id": f"r{number}", "inputs": [tensor]}


def bento_body(rows: Matrix, _number: int) -> dict:
    return {"rows": rows}


def mlflow_body(rows: Matrix, _number: int) -> dict:
    columns = [f"Column_{index}" for index in range(len(rows[0]))]
    data = [[math.nan if value is None else value for value in row] for row in rows]  # null: objects
    return {"dataframe_split": {"columns": columns, "data": data}}


@dataclass(frozen=True)
class Peer:
    """How one is started (`command` gets interpreter, model file, scratch folder and port) and asked."""

    name: str
    package: str
    packages: tuple[str, ...]
    command: Callable[[Path, Path, Path, int], list[str]]
    path: str = "/v2/models/flights/infer"
    body: Callable[[Matrix, int], dict] = oip_body

    def python(self) -> Path:
        """Its interpreter; OSError when it cannot be installed."""
        return rig.peer_python(f"serving-{self.name}", *self.packages)

    def version(self) -> str:
        """Its name and version, with LightGBM's."""
        its, lightgbm = (rig.version_in(self.python(), name) for name in (self.package, "lightgbm"))
        return f"{self.name} {its}, LightGBM {lightgbm}"

    def requests(self, rows: Matrix, each: int) -> list[bytes]:
        """Requests of `each` rows."""
        parts = [rows[at : at + each] for at in range(0, len(rows) - each + 1, each)]
        return [
            load.http_post(self.path, json.dumps(self.body(part, number)).encode())
            for number, part in enumerate(parts)
        ]


def _script(name: str) -> Callable[[Path, Path, Path, int], list[str]]:
    return lambda python, model, _folder, port: [str(python), str(SCRIPTS / name), str(model), str(port)]


def _mlserver(python: Path, model: Path, folder: Path, port: int) -> list[str]:
    """MLServer in its fastest setting on one core: no worker processes."""
    settings = {"http_port": port, "grpc_port": rig.free_port(), "metrics_port": rig.free_port()}
    settings |= {"host": "127.0.0.1", "parallel_workers": 0, "debug": False}
    model_settings = {
        "name": "flights",
        "implementation": "mlserver_lightgbm.LightGBMModel",
        "parameters": {"uri": str(model)},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model_settings))
    return [str(python.with_name("mlserver")), "start", str(folder)]


LIGHTGBM = "lightgbm==4.7.0"
PEERS = {
    peer.name: peer
    for peer in (
        Peer("MLServer", "mlserver", ("mlserver", "mlserver-lightgbm", LIGHTGBM), _mlserver),
        Peer("KServe", "kserve", ("kserve", LIGHTGBM), _script("kserve_lightgbm.py")),
        Peer(
            "BentoML", "bentoml", ("bentoml", LIGHTGBM), _script("bentoml_lightgbm.py"), "/infer", bento_body
        ),
        Peer(
            "MLflow",
            "mlflow",
            ("mlflow", LIGHTGBM),
            _script("mlflow_lightgbm.py"),
            "/invocations",
            mlflow_body,
        ),
        Peer(
            "FastAPI",
            "fastapi",
            ("fastapi", "uvicorn[standard]", "numpy", "scipy", LIGHTGBM),
            _script("naive_fastapi.py"),
        ),
    )
}


@contextmanager
def running(peer: Peer, model_text: str, probe: bytes) -> Iterator[tuple[psutil.Process, int]]:
    """The peer's process and port, once it answers `probe`."""
    port = rig.free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.bst"
        model.write_text(model_text)
        command = peer.command(peer.python(), model, folder, port)
        log = (folder / "log").open("w+b")
        child = subprocess.Popen(command, env=_environment(peer.python()), stdout=log, stderr=log, cwd=folder)
        process = psutil.Process(child.pid)
        process.cpu_affinity([0])  # before it has children, which inherit it
        try:
            _wait_until_it_answers(port, probe, child)
            yield process, port
        except BaseException:
            print((folder / "log").read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            _end(process)


def _environment(python: Path) -> dict[str, str]:
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"BENTOML_DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path, **quiet}


def _wait_until_it_answers(port: int, probe: bytes, child: subprocess.Popen) -> None:
    head, _, body = probe.partition(b"\r\n\r\n")
    url = f"http://127.0.0.1:{port}{head.split()[1].decode()}"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            answer = httpx.post(url, content=body, headers={"content-type": "application/json"})
            if answer.status_code == 200:
                return
            said = answer.text[:500]
        except httpx.TransportError as error:
            said = str(error)
        if child.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{url} does not answer: {said}")
        time.sleep(0.2)


def _end(process: psutil.Process) -> None:
    family = [process, *process.children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=5)
    for each in alive:
        each.kill()
    psutil.wait_procs(alive, timeout=5)


def tree_cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process and its children."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in family)


def tree_memory_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and its children."""
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
