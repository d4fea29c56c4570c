"""Uploads without end, and a broker that stops: the process must not grow, and nobody is told a lie."""

import asyncio
import json
import signal
from collections import Counter
from typing import Any

import httpx
import psutil
import pytest
from everloop_kernel.admin import ensure_topics
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.topics import platform_topics

pytestmark = pytest.mark.integration

NDJSON = {"content-type": "application/x-ndjson"}
MEGABYTE = 1 << 20


class Memory:
    """The highest resident memory of a process, in bytes, from now on."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.before = self.highest = self._process.memory_info().rss
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            self.highest = max(self.highest, self._process.memory_info().rss)
            await asyncio.sleep(0.05)

    def growth(self) -> int:
        self._watching.cancel()
        return self.highest - self.before


@pytest.fixture
async def edge(own_kafka, ingest_on):
    """The edge alone, on a broker that this test may stop."""
    await ensure_topics(KafkaSettings(bootstrap_servers=own_kafka.bootstrap_servers), platform_topics())
    ingest = ingest_on(own_kafka)
    ingest.extra = {"EVERLOOP_INGEST_WORKER": "false"}
    ingest.start()
    await ingest.define("flights")
    return ingest


async def test_an_upload_of_any_length_is_read_in_constant_memory(edge, records) -> None:
    """A backfill of a year is one request; it must not need the memory of a year."""
    line = json.dumps(records.observation(1, carrier="x" * 2000)).encode() + b"\n"
    block, blocks = line * 500, 100

    async def body():
        for _ in range(blocks):
            yield block

    url = f"{edge.url}/v1/pipelines/flights/observations"
    async with httpx.AsyncClient(timeout=120) as client:
        await client.post(url, content=block * 8, headers=NDJSON)  # what a first request makes, it keeps
        memory = Memory(edge.process.pid)
        answer = await client.post(url, content=body(), headers=NDJSON)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 500 * blocks)
    assert len(block) * blocks > 100 * MEGABYTE
    assert memory.growth() < 30 * MEGABYTE


async def test_a_stopped_broker_means_429_and_503_and_no_growth(own_kafka, edge, records, until) -> None:
    """A broker that hangs must not take ingest with it; producers are told to come back."""
    url = f"{edge.url}/v1/pipelines/flights/observations"
    rows = json.dumps([records.observation(n, carrier="x" * 1000) for n in range(2000)])
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=100)) as client:
        assert (await client.post(url, content=rows)).status_code == 202
        memory = Memory(edge.process.pid)
        own_kafka.child.signal(signal.SIGSTOP)
        try:
            answers = await asyncio.gather(*[_insist(client, url, rows, seconds=11) for _ in range(40)])
            health = await client.get(f"{edge.url}/health/live")
        finally:
            own_kafka.child.signal(signal.SIGCONT)
        found = sum(answers, Counter())
        assert health.status_code == 200
        assert found[429] > 0, found
        assert found[503] > 0, found
        assert set(found) == {429, 503}, found
        assert (
            memory.growth() < 250 * MEGABYTE
        )  # 64 MB of bodies, 32 MB of records, and what Python makes of both

        async def accepted() -> bool:
            return (await client.post(url, json=records.observation(1))).status_code == 202

        assert await until(accepted, seconds=60)


async def _insist(client: httpx.AsyncClient, url: str, rows: str, seconds: float) -> Counter[int]:
    """One producer that repeats at once whatever is refused."""
    found: Counter[int] = Counter()
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        answer: Any = await client.post(url, content=rows)
        assert answer.status_code == 202 or answer.headers["retry-after"]
        found[answer.status_code] += 1
        await asyncio.sleep(0.2)
    return found
