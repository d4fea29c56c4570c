"""A thousand swaps under load: errors, answers that mix two versions, latency, and memory.

    python bench/swaps.py [--swaps 1000] [--connections 8]

Every swap deploys a new version, so that each is verified, tried in the sandbox, loaded and warmed up. The
models of odd and even versions answer differently, and each answer must be that of the version that it names.
Serving is on core 0, where its sandbox is too; the load and Kafka are on the others.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import load
import psutil
import rig
import uvloop
from everloop_kernel.kafka import plain_producer
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import cloudevents

sys.path.insert(0, str(rig.ROOT / "tests"))
import sys

from integration.serving.deployed_model import (
    RECORD,
    Signer,
    artifact,
    expected_output,
    infer_body,
    reference,
)

sys.path.insert(0, str(rig.ROOT / "tests"))
from integration.serving.serving_process import ServingProcess, publish

NAME = "swapped"
Place = tuple[ServingProcess, Signer, KafkaSettings]
CALM_SECONDS = 20.0
PAUSE_SECONDS = 0.004
"""Between two requests of a connection: about 1,800 a second of eight, a sixth of what the core can do."""
CALM_SWAPS = 100
"""Memory is compared with what it was after so many: until then caches fill."""


@dataclass
class Seen:
    """What clients saw in a while."""

    latencies: list[float] = field(default_factory=list)
    versions: Counter[int] = field(default_factory=Counter)
    errors: int = 0
    mixed: int = 0

    def p99_ms(self) -> float:
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)] * 1000


class Clients:
    """Connections that ask again and again and look at each answer."""

    def __init__(self, port: int, outputs: tuple[float, ...], pause_seconds: float) -> None:
        self._port = port
        self._pause_seconds = pause_seconds
        self._outputs = outputs
        self._request = load.http_post(f"/v2/models/{NAME}/infer", json.dumps(infer_body([RECORD])).encode())
        self.seen = Seen()

    async def ask(self) -> None:
        """Until cancelled."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                began = time.perf_counter()
                writer.write(self._request)
                status, body = await _answer(reader)
                self._look(status, body, time.perf_counter() - began)
                await asyncio.sleep(self._pause_seconds)
        finally:
            writer.close()

    def _look(self, status: bytes, body: bytes, seconds: float) -> None:
        seen = self.seen
        seen.latencies.append(seconds)
        if b" 200 " not in status:
            seen.errors += 1
            return
        answer = json.loads(body)
        version = int(answer["model_version"])
        seen.versions[version] += 1
        seen.mixed += answer["outputs"][0]["data"][0] != self._outputs[version % 2]


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    return head.partition(b"\r\n")[0], await reader.readexactly(length)


@contextmanager
def served(artifacts: tuple[bytes, bytes]) -> Iterator[Place]:
    """Serving with version 1, on a Kafka of its own."""
    with tempfile.TemporaryDirectory() as name, rig.broker(Path(name)) as kafka:
        signer = Signer()
        signer.trust_in(Path(name) / "data" / "keys")
        first = signer.deployment(NAME, 1, reference(artifacts[1], 1))
        asyncio.run(publish(kafka, first, *artifacts))
        serving = ServingProcess(kafka.bootstrap_servers, Path(name) / "data")
        serving.start()
        serving.wait_for(f"/v2/models/{NAME}/ready")
        serving.wait_for("/health/ready")
        psutil.Process(serving.pid).cpu_affinity([0])
        try:
            yield serving, signer, kafka
        finally:
            serving.stop()


async def swap_again_and_again(
    clients: Clients, where: Place, artifacts: tuple[bytes, bytes], swaps: int
) -> tuple[list[float], dict[int, int]]:
    """Seconds of each swap, from the deployment to the first answer by it; memory on the way."""
    serving, signer, kafka = where
    took: list[float] = []
    memory: dict[int, int] = {}
    async with plain_producer(kafka) as producer:
        for version in range(2, swaps + 2):
            deployment = signer.deployment(NAME, version, reference(artifacts[version % 2], version))
            value, headers = cloudevents.encode(deployment, id=str(version), source="bench")
            began = time.perf_counter()
            await producer.send_and_wait(deployment.topic, value, NAME.encode(), headers=headers)
            while not clients.seen.versions[version]:
                await asyncio.sleep(0.002)
                if time.perf_counter() - began > 60:
                    raise SystemExit(f"version {version} does not answer")
            took.append(time.perf_counter() - began)
            if not (version - 1) % CALM_SWAPS:
                memory[version - 1] = psutil.Process(serving.pid).memory_info().rss
                print(f"{version - 1} swaps, {memory[version - 1] / 1e6:.0f} MB", flush=True)
    return took, memory


async def measure(where: Place, artifacts: tuple[bytes, bytes], swaps: int, connections: int) -> list[dict]:
    clients = Clients(
        where[0].port, tuple(expected_output(each, RECORD) for each in artifacts), PAUSE_SECONDS
    )
    asking = [asyncio.create_task(clients.ask()) for _ in range(connections)]
    await asyncio.sleep(2)
    calm = clients.seen = Seen()
    await asyncio.sleep(CALM_SECONDS)
    busy = clients.seen = Seen()
    took, memory = await swap_again_and_again(clients, where, artifacts, swaps)
    for task in asking:
        task.cancel()
    ended = await asyncio.gather(*asking, return_exceptions=True)
    busy.errors += sum(not isinstance(each, asyncio.CancelledError) for each in ended)
    print(f"p99 {calm.p99_ms():.2f} ms calm, {busy.p99_ms():.2f} ms with swaps")
    return figures_of(calm, busy, took, memory)


def figures_of(calm: Seen, busy: Seen, took: list[float], memory: dict[int, int]) -> list[dict]:
    grown = (max(memory.values()) - memory[min(memory)]) / 1e6
    shift, took = busy.p99_ms() - calm.p99_ms(), sorted(took)
    return [
        rig.figure("swaps under load", len(took), "swaps"),
        rig.figure("swaps: answers meanwhile", len(busy.latencies), "answers"),
        rig.figure("swaps: requests that failed", busy.errors, "requests", goal=0, at_most=True),
        rig.figure("swaps: answers not of their version", busy.mixed, "answers", goal=0, at_most=True),
        rig.figure("swaps: p99 more than without", shift, "ms", goal=5, at_most=True, digits=2),
        rig.figure(
            f"swaps: memory more than after {CALM_SWAPS}", grown, "MB", goal=5, at_most=True, digits=1
        ),
        rig.figure("swaps: deployment to first answer, median", took[len(took) // 2], "s", digits=2),
        rig.figure("swaps: deployment to first answer, longest", took[-1], "s", digits=2),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--swaps", type=int, default=1000, help=f"at least {2 * CALM_SWAPS}")
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    if options.swaps < 2 * CALM_SWAPS:
        parser.error(f"fewer than {2 * CALM_SWAPS} swaps say nothing of memory")
    artifacts = tuple(artifact(NAME, seed=seed, trees=300, leaves=63) for seed in (2, 1))
    with served(artifacts) as where:
        figures = uvloop.run(measure(where, artifacts, options.swaps, options.connections))
    rig.keep("swaps", figures)
    rig.show(figures)


if __name__ == "__main__":
    main()
