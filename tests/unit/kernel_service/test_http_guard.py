"""What uvicorn would keep for ever: heads without end, and requests that hardly come."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from everloop_kernel.auth import Tokens
from everloop_kernel.health import Health
from everloop_kernel.http import json_response
from everloop_kernel.http_guard import GuardedConnection
from everloop_kernel.http_limits import Limits
from everloop_kernel.service import application
from starlette.routing import Route
from uvicorn import Config
from uvicorn.server import ServerState

LIMITS = Limits(request_seconds=0.3, idle_seconds=0.3)
HEAD = b"POST /length HTTP/1.1\r\nHost: x\r\n"


async def length(request):
    return json_response(len(await request.body()))


@asynccontextmanager
async def connected(limits: Limits = LIMITS):
    """A connection to an application behind the guard."""
    guarded = type("Guarded", (GuardedConnection,), {"limits": limits})
    config = Config(application([Route("/length", length, methods=["POST"])], Tokens(None), Health([])))
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: guarded(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()


async def everything(reader) -> bytes:
    async with asyncio.timeout(30):
        return await reader.read()


async def test_a_request_is_answered_as_before():
    async with connected(Limits()) as (reader, writer):
        writer.write(HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello")
        assert (await everything(reader)).endswith(b"\r\n\r\n5")


async def test_a_head_without_end_is_refused():
    """One connection could fill the memory of the registry."""
    async with connected(Limits()) as (reader, writer):
        for _ in range(100):
            writer.write(HEAD + b"A: " + b"a" * 100_000)
        found = await everything(reader)
    assert found.startswith(b"HTTP/1.1 431 ")
    assert b"application/problem+json" in found


@pytest.mark.parametrize("begun", [HEAD, HEAD + b"Content-Length: 1000\r\n\r\nabc"])
async def test_a_request_that_hardly_comes_is_ended(begun):
    """A few thousand such connections would keep everyone else out."""
    async with connected() as (reader, writer):
        writer.write(begun)
        assert (await everything(reader)).startswith(b"HTTP/1.1 408 ")


async def test_a_connection_that_asks_nothing_is_closed():
    async with connected() as (reader, _):
        await everything(reader)


async def test_a_large_body_has_its_time():
    """An upload of some seconds is no attack."""
    async with connected(Limits(request_seconds=0.5)) as (reader, writer):
        body = b"a" * (3 << 20)
        writer.write(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body[: 2 << 20])
        await asyncio.sleep(0.8)
        writer.write(body[2 << 20 :])
        assert (await everything(reader)).endswith(b"%d" % len(body))
