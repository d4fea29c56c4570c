"""A small HTTP load generator: N connections, each sends its next request when its answer has come."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop


@dataclass
class Figures:
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    answered: int

    def __str__(self) -> str:
        return (
            f"{self.requests_per_second:8.0f} requests/s   p50 {self.p50_ms:6.2f} ms"
            f"   p99 {self.p99_ms:6.2f} ms   errors {self.errors}"
        )


class _Client(asyncio.Protocol):
    """One connection. Rows rotate: the same row again flatters every engine."""

    def __init__(self, requests: Sequence[bytes], first: int, latencies: list[float]) -> None:
        self.requests = requests
        self.next = first
        self.latencies = latencies
        self.errors = 0
        self.answered = 0
        self.sent = 0.0
        self.buffer = b""
        self.running = True
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.requests[self.next % len(self.requests)])
        self.next += 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = self.buffer[:head].lower()
        at = lower.index(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0])
        if len(self.buffer) < head + 4 + length:
            return
        if not self.buffer.startswith(b"HTTP/1.1 20"):
            self.errors += 1
        self.buffer = b""
        self.answered += 1
        self.latencies.append(time.perf_counter() - self.sent)
        if self.running:
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, _exc) -> None:
        if self.running:
            self.errors += 1
        self.closed.set_result(None)


async def _run(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Figures:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    clients = []
    for number in range(connections):
        first = number * (len(requests) // connections)
        _, client = await loop.create_connection(
            lambda first=first: _Client(requests, first, latencies), "127.0.0.1", port
        )
        clients.append(client)
    await asyncio.sleep(1.0)  # warm
    latencies.clear()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    count, took = len(latencies), time.perf_counter() - began
    for client in clients:
        client.running = False
    await asyncio.gather(*(client.closed for client in clients))
    ordered = sorted(latencies[:count])
    return Figures(
        count / took,
        ordered[count // 2] * 1000,
        ordered[int(count * 0.99)] * 1000,
        sum(client.errors for client in clients),
        sum(client.answered for client in clients),
    )


def run(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Figures:
    return uvloop.run(_run(port, requests, connections, seconds))


def http_post(path: str, body: bytes) -> bytes:
    return (
        b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % (path.encode(), len(body))
        + body
    )
