"""Bodies that are handed over as they arrive: bounded memory, honest answers, nothing that hangs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from everloop_kernel.http_body import BodyError
from everloop_kernel.http_limits import Limits
from everloop_kernel.http_message import Request, Response, json_response, problem_response
from everloop_kernel.http_server import HttpServer
from everloop_kernel.settings import HttpSettings

HEAD = b"POST /%s HTTP/1.1\r\nhost: a\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
SMALL = Limits(buffered_bytes=64 << 10, request_seconds=0.3, linger_seconds=0.3, body_bytes=100)


class Reader:
    """Counts the bytes of bodies; `/slow` takes none before `go`, `/never` refuses at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.errors: list[int] = []
        self.ended = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        if request.target == b"/never":
            return problem_response(413, "too much")
        try:
            if request.target == b"/slow":
                await self.go.wait()
            assert request.stream is not None
            return json_response({"size": sum([len(piece) async for piece in request.stream])})
        except BodyError as error:
            self.errors.append(error.status)
            return problem_response(error.status, str(error))
        finally:
            self.ended.set()


@asynccontextmanager
async def served(limits: Limits | None = None) -> AsyncIterator[tuple[HttpServer, Reader]]:
    reader = Reader()
    server = HttpServer(HttpSettings(http_port=0), reader, limits, streamed=lambda _: True)
    running = asyncio.create_task(server.run())
    try:
        yield server, reader
    finally:
        server.stop()
        await asyncio.wait_for(running, 10)


async def talk(server: HttpServer, *pieces: bytes, pause: float = 0.0) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    found = b""
    with suppress(TimeoutError, ConnectionError):
        while data := await asyncio.wait_for(reader.read(65536), 3):
            found += data
    writer.close()
    return found


CLOSE = HEAD % b"end" + b"connection: close\r\ncontent-length: 2\r\n\r\nxy"


async def test_a_body_beyond_the_limit_of_collected_ones_is_read_in_pieces() -> None:
    """An upload of any length passes, and the connection goes on after it."""
    body = b"x" * 300_000
    async with served(SMALL) as (server, _):
        found = await talk(server, HEAD % b"a" + b"content-length: 300000\r\n\r\n", body, CLOSE)
    assert b'{"size":300000}' in found
    assert found.endswith(b'{"size":2}')


async def test_pipelined_streams_are_answered_in_order() -> None:
    """A client matches answers by their order."""
    first = HEAD % b"slow" + b"content-length: 3\r\n\r\nabc"
    async with served() as (server, reader):
        asyncio.get_running_loop().call_later(0.1, reader.go.set)
        found = await talk(server, first + CLOSE)
    assert found.index(b'{"size":3}') < found.index(b'{"size":2}')


async def test_a_slow_handler_stops_the_sender() -> None:
    """What the handler does not take must wait at the client, not in our memory."""
    async with served(SMALL) as (server, reader):
        stream, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HEAD % b"slow" + CHUNKED)
        sent, piece = 0, b"10000\r\n" + b"x" * 65536 + b"\r\n"
        with suppress(TimeoutError):
            async with asyncio.timeout(0.8):
                for _ in range(1000):
                    writer.write(piece)
                    await writer.drain()
                    sent += 65536
        (connection,) = server._connections
        assert connection._buffered <= SMALL.buffered_bytes + (256 << 10)
        assert sent < 60 << 20
        reader.go.set()  # longer than request_seconds: time in which we do not read is not the client's
        writer.write(b"0\r\n\r\n")
        answer = await asyncio.wait_for(stream.readuntil(b"}"), 10)
        assert b"200 OK" in answer
        writer.close()


@pytest.mark.parametrize(
    ("rest", "status"),
    [(b"zz\r\n", 400), (b"5\r\nab", 408)],
)
async def test_a_body_that_breaks_off_is_the_handlers_to_answer(rest: bytes, status: int) -> None:
    """What came before may have been published: only the handler can say so."""
    async with served(SMALL) as (server, reader):
        found = await talk(server, HEAD % b"a" + CHUNKED + b"2\r\nxy\r\n" + rest)
    assert reader.errors == [status]
    assert found.startswith(b"HTTP/1.1 %d" % status)
    assert b"connection: close" in found


async def test_an_end_within_the_body_is_told() -> None:
    """A half upload must not look like a whole one."""
    async with served() as (server, reader):
        stream, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HEAD % b"a" + b"content-length: 10\r\n\r\nabc")
        writer.write_eof()
        found = await asyncio.wait_for(stream.read(), 5)
        writer.close()
    assert reader.errors == [400]
    assert found.startswith(b"HTTP/1.1 400")


async def test_an_early_refusal_reaches_a_client_that_still_sends() -> None:
    """A reset in place of the reason would leave the sender guessing."""
    async with served(SMALL) as (server, _):
        pieces = [b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 40
        found = await talk(server, HEAD % b"never" + CHUNKED, *pieces)
        assert found.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in found


async def test_a_client_that_waits_for_continue_is_refused_before_it_sends() -> None:
    """A gigabyte that will be refused should not cross the network."""
    head = HEAD % b"never" + b"expect: 100-continue\r\ncontent-length: 1000000000\r\n\r\n"
    wanted = HEAD % b"a" + b"expect: 100-continue\r\ncontent-length: 1\r\nconnection: close\r\n\r\n"
    async with served(SMALL) as (server, _):
        refused = await talk(server, head)
        accepted = await talk(server, wanted, b"x", pause=0.1)
    assert refused.startswith(b"HTTP/1.1 413")
    assert accepted.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")


async def test_a_lost_client_ends_its_handler() -> None:
    """Whoever is gone must not hold memory."""
    async with served() as (server, reader):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HEAD % b"a" + b"content-length: 10\r\n\r\nabc")
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.transport.abort()
        async with asyncio.timeout(3):
            await reader.ended.wait()
