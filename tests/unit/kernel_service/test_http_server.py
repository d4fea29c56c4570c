# ruff: noqa: E501  # tables of requests
"""The HTTP server against clients that are slow, wrong, greedy or in a hurry."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from everloop_kernel.http_limits import Limits
from everloop_kernel.http_message import Deferred, Handler, Request, json_response
from everloop_kernel.http_server import HttpServer
from everloop_kernel.settings import HttpSettings

HOST = b"host: a\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
SMALL = Limits(
    body_bytes=100,
    target_bytes=50,
    header_bytes=200,
    header_count=5,
    request_seconds=0.2,
    idle_seconds=0.3,
    connections=2,
    pipelined=3,
)


def echo(request: Request):
    """Answers with what it got; `/later-<ms>` answers after a while."""
    answer = json_response({"target": request.target.decode(), "body": request.body.decode("latin-1")})
    if not request.target.startswith(b"/later"):
        return answer

    async def later():
        await asyncio.sleep(int(request.target[7:]) / 1000)
        return answer

    return later()


@asynccontextmanager
async def served(limits: Limits | None = None, handler: Handler = echo) -> AsyncIterator[HttpServer]:
    server = HttpServer(HttpSettings(http_port=0), handler, limits)
    running = asyncio.create_task(server.run())
    try:
        yield server
    finally:
        server.stop()
        await asyncio.wait_for(running, 10)


async def exchange(server: HttpServer, *pieces: bytes, pause: float = 0.0, seconds: float = 3.0) -> bytes:
    """Send pieces and read until the server closes, or for a moment of silence."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    found = b""
    with suppress(TimeoutError, ConnectionError):
        while data := await asyncio.wait_for(reader.read(65536), seconds):
            found += data
    writer.close()
    return found


def statuses(found: bytes) -> list[int]:
    return [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:]]


CLOSE = b"GET /end HTTP/1.1\r\n" + HOST + b"connection: close\r\n\r\n"


async def test_pipelined_requests_are_answered_in_order() -> None:
    """A client that pipelines matches answers to requests by their order alone."""
    first = b"GET /later-60 HTTP/1.1\r\n" + HOST + b"\r\n"
    second = b"GET /later-5 HTTP/1.1\r\n" + HOST + b"\r\n"
    async with served() as server:
        found = await exchange(server, first + second + GET + GET + CLOSE)
    order = [found.index(name) for name in (b"/later-60", b"/later-5", b'"/a"', b"/end")]
    assert order == sorted(order)
    assert statuses(found) == [200] * 5


async def test_deferred_answers_leave_in_order_and_at_once() -> None:
    """Handlers answer several requests together, in whatever order: each client gets its own."""
    waiting: list[tuple[Request, Deferred]] = []

    def defer(request: Request) -> Deferred:
        waiting.append((request, Deferred()))
        if len(waiting) == 3:
            asyncio.get_running_loop().call_soon(give)
        return waiting[-1][1]

    def give() -> None:
        for request, deferred in reversed(waiting):
            deferred.give(echo(request))

    async with served(handler=defer) as server:
        found = await exchange(server, GET.replace(b"/a", b"/first"), GET.replace(b"/a", b"/second") + CLOSE)
    order = [found.index(name) for name in (b"/first", b"/second", b"/end")]
    assert order == sorted(order)
    assert statuses(found) == [200] * 3


async def test_a_deferred_answer_nobody_waits_for_is_dropped() -> None:
    """A client that hung up must not break the answers of the others."""
    asked, gone = asyncio.Event(), asyncio.Event()

    class Noted(Deferred):
        def cancel(self) -> None:
            super().cancel()
            gone.set()

    deferred = Noted()

    def defer(_request: Request) -> Deferred:
        asked.set()
        return deferred

    async with served(handler=defer) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET)
        await asked.wait()
        reset_at_close = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_at_close)
        writer.transport.abort()
        await gone.wait()
        deferred.give(json_response({}))
        assert deferred.cancelled()


async def test_a_deferred_answer_can_be_awaited() -> None:
    """Code around a handler does not ask what kind of answer it gets."""
    early, late, never = Deferred(), Deferred(), Deferred()
    early.give(json_response(1))
    asyncio.get_running_loop().call_soon(late.give, json_response(2))
    assert [(await early).body, (await late).body] == [b"1", b"2"]
    with pytest.raises(asyncio.InvalidStateError):
        never.result()
    never.cancel()
    with pytest.raises(asyncio.CancelledError):
        await never


async def test_more_pipelined_requests_than_the_limit_still_get_their_answers() -> None:
    """Back-pressure must not lose requests."""
    later = b"GET /later-10 HTTP/1.1\r\n" + HOST + b"\r\n"
    async with served(SMALL) as server:
        found = await exchange(server, *[later] * 10, CLOSE)
    assert statuses(found) == [200] * 11


async def test_a_request_in_single_bytes_is_read() -> None:
    """Networks cut anywhere."""
    body = b"POST /b HTTP/1.1\r\n" + HOST + b"content-length: 3\r\nconnection: close\r\n\r\nxyz"
    async with served() as server:
        found = await exchange(server, *[body[i : i + 1] for i in range(len(body))])
    assert found.endswith(b'{"target":"/b","body":"xyz"}')


async def test_chunked_bodies_are_put_together() -> None:
    """Clients that stream do not know the length."""
    body = b"POST /b HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    async with served() as server:
        found = await exchange(server, body, b"2\r\nxy\r\n", b"1\r\nz\r\n0\r\n\r\n")
    assert found.endswith(b'"body":"xyz"}')


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # a TLS client
        (b"GET /a HTTP/1.1\r\n\r\n", 400),  # no host
        (b"GET /a HTTP/2.0\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"content-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"a b: c\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 1000\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n" + b"40\r\n" + b"x" * 64 + b"\r\n" + b"40\r\n" + b"x" * 64 + b"\r\n", 413),
        (b"GET /" + b"a" * 60 + b" HTTP/1.1\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + HOST + b"a: b\r\n" * 6 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"a: " + b"b" * 300 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"a: " + b"b" * 400_000, 431),  # a header that does not end
    ],
)  # fmt: skip
async def test_what_is_wrong_or_too_large_is_refused_and_closed(request_bytes: bytes, status: int) -> None:
    """Half-read input must not be taken for the next request (request smuggling)."""
    async with served(SMALL) as server:
        found = await exchange(server, request_bytes)
    assert statuses(found) == [status]
    assert b"connection: close" in found
    assert b"content-type: application/problem+json" in found


async def test_a_request_that_trickles_is_ended() -> None:
    """Slow clients must not hold connections for ever (slow loris)."""
    async with served(SMALL) as server:
        found = await exchange(server, b"GET / HTTP/1.1\r\n", b"a: b\r\n", pause=0.01, seconds=4)
    assert statuses(found) == [408]


async def test_an_idle_connection_is_closed_without_an_answer() -> None:
    """Idle connections cost memory."""
    async with served(SMALL) as server:
        found = await exchange(server, GET, seconds=4)
        assert statuses(found) == [200]
        assert server.connections == 0


async def test_too_many_connections_are_told_so() -> None:
    """A refused client should know that it is not its fault."""
    async with served(SMALL) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        await asyncio.sleep(0.05)
        found = await exchange(server, b"")
        for _, writer in held:
            writer.close()
    assert statuses(found) == [503]


async def test_a_client_that_waits_for_continue_gets_it() -> None:
    """curl waits a second for it before it sends a large body."""
    head = (
        b"POST /b HTTP/1.1\r\n"
        + HOST
        + b"content-length: 3\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
    )
    async with served() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head)
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"xyz")
        assert (await asyncio.wait_for(reader.read(), 2)).endswith(b'"body":"xyz"}')
        writer.close()


async def test_http_1_0_and_close_end_the_connection_and_head_has_no_body() -> None:
    """Old clients wait for the end of the connection."""
    async with served() as server:
        old = await exchange(server, b"GET /a HTTP/1.0\r\n\r\n")
        head = await exchange(server, b"HEAD /a HTTP/1.1\r\n" + HOST + b"connection: close\r\n\r\n")
        upgrade = await exchange(
            server, b"GET /a HTTP/1.1\r\n" + HOST + b"connection: upgrade\r\nupgrade: h2c\r\n\r\nPRI"
        )
    assert statuses(old) == statuses(head) == statuses(upgrade) == [200]
    assert head.endswith(b"\r\n\r\n")
    assert b"content-length: 25" in head


async def test_a_stop_lets_answers_under_way_out() -> None:
    """A rollout of serving itself must not cost a request."""
    async with served() as server:
        asked = asyncio.create_task(exchange(server, b"GET /later-300 HTTP/1.1\r\n" + HOST + b"\r\n"))
        await asyncio.sleep(0.1)
    assert statuses(await asked) == [200]


async def test_a_client_that_does_not_read_is_not_buffered_for() -> None:
    """Answers nobody reads must not fill the memory."""
    async with served() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        body = b"x" * 90_000
        request = b"POST /b HTTP/1.1\r\n" + HOST + b"content-length: 90000\r\n\r\n" + body
        sent = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                for _ in range(400):
                    writer.write(request)
                    await writer.drain()
                    sent += 1
        assert sent < 400  # the server stopped reading
        writer.transport.abort()
        del reader
