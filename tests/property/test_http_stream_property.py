# ruff: noqa: E501  # a table of fragments
"""Any bytes at a server that streams bodies: an answer or a closed connection, and it still serves."""

import asyncio
from contextlib import suppress

from everloop_kernel.http_body import BodyError
from everloop_kernel.http_limits import Limits
from everloop_kernel.http_message import Request, Response, json_response, problem_response
from everloop_kernel.http_server import HttpServer
from everloop_kernel.settings import HttpSettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HOST = b"host: a\r\n"
FRAGMENTS = st.sampled_from(
    [
        b"POST /read HTTP/1.1\r\n" + HOST, b"POST /refuse HTTP/1.1\r\n" + HOST, b"GET /read HTTP/1.1\r\n", HOST,
        b"content-length: 5\r\n", b"content-length: 999999999999\r\n", b"transfer-encoding: chunked\r\n",
        b"connection: close\r\n", b"expect: 100-continue\r\n", b"\r\n", b"\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
        b"hello", b"\x00", b"zz\r\n", b"upgrade: h2c\r\nconnection: upgrade\r\n",
    ]
)  # fmt: skip
PIECES = st.lists(st.one_of(FRAGMENTS, st.binary(max_size=40)), max_size=14)
ALIVE = b"POST /read HTTP/1.1\r\n" + HOST + b"connection: close\r\ncontent-length: 2\r\n\r\nok"


async def _handle(request: Request) -> Response:
    if request.target == b"/refuse" or request.stream is None:
        return problem_response(415, "not that")
    try:
        return json_response({"size": sum([len(piece) async for piece in request.stream])})
    except BodyError as error:
        return problem_response(error.status, str(error))


async def _converse(pieces: list[bytes]) -> tuple[bytes, bytes, list]:
    problems: list = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    limits = Limits(header_bytes=500, request_seconds=0.05, idle_seconds=0.05, linger_seconds=0.05)
    server = HttpServer(HttpSettings(http_port=0), _handle, limits, streamed=lambda _: True)
    running = asyncio.create_task(server.run())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    found = b""
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        writer.write_eof()
        found = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    again, after = await asyncio.open_connection("127.0.0.1", server.port)
    after.write(ALIVE)
    alive = await asyncio.wait_for(again.read(), 5)
    after.close()
    server.stop()
    await asyncio.wait_for(running, 5)
    return found, alive, problems


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PIECES)
def test_any_bytes_get_an_answer_or_a_closed_connection(pieces: list[bytes]) -> None:
    """A producer gone mad must not take the others' uploads down."""
    found, alive, problems = asyncio.run(_converse(pieces))
    assert problems == []
    assert found == b"" or found.startswith(b"HTTP/1.1 ")
    assert alive.endswith(b'{"size":2}')
