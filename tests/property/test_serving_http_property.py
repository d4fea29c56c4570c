# ruff: noqa: E501  # a table of fragments
"""Any bytes at serving's HTTP port: an answer or a closed connection, never a crash, and then it still serves."""

import asyncio
from contextlib import suppress

from everloop_kernel.auth import Tokens
from everloop_kernel.http_limits import Limits
from everloop_kernel.http_message import Request, Response
from everloop_kernel.http_server import HttpServer
from everloop_kernel.settings import HttpSettings
from everloop_serving.application.models import Models
from everloop_serving.application.predict import Predictions
from everloop_serving.application.prediction_events import EventWriter
from everloop_serving.entrypoints.access import Access
from everloop_serving.entrypoints.errors import Errors
from everloop_serving.entrypoints.http_routes import Routes
from everloop_serving.entrypoints.infer_http import Inference
from everloop_serving.metrics import HotMetrics
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\n"
FRAGMENTS = st.sampled_from(
    [
        b"GET /v2 HTTP/1.1\r\n", HEAD, b"host: a\r\n", b"content-length: 5\r\n", b"content-length: 99999999999\r\n",
        b"transfer-encoding: chunked\r\n", b"connection: close\r\n", b"upgrade: h2c\r\nconnection: upgrade\r\n",
        b"expect: 100-continue\r\n", b"inference-header-content-length: 3\r\n", b"\r\n", b"\r\n\r\n", b"5\r\nhello\r\n",
        b"0\r\n\r\n", b'{"inputs":[]}', b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1]}]}', b"\x00", b"\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /v2/models/%ff/ready HTTP/1.1\r\n", b"GET http://x/v2 HTTP/1.1\r\n",
        b"HEAD /metrics HTTP/1.0\r\n", b"DELETE /v2 HTTP/1.1\r\n",
    ]
)  # fmt: skip
PIECES = st.lists(st.one_of(FRAGMENTS, st.binary(max_size=80)), max_size=12)


def routes() -> Routes:
    models, metrics = Models(), HotMetrics()
    errors = Errors(metrics)
    inference = Inference(models, Predictions(EventWriter("x"), lambda event: None, metrics), errors)
    return Routes(
        models,
        inference,
        Access(Tokens(None)),
        errors,
        components=[],
        metrics=metrics,
        most_body_bytes=1 << 20,
    )


async def _converse(pieces: list[bytes]) -> tuple[bytes, bytes, list]:
    problems: list = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    limits = Limits(body_bytes=200, header_bytes=500, request_seconds=0.05, idle_seconds=0.05)
    server = HttpServer(HttpSettings(http_port=0), routes(), limits)
    running = asyncio.create_task(server.run())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
        writer.write_eof()
    found = b""
    with suppress(ConnectionError):
        found = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    after_reader, after = await asyncio.open_connection("127.0.0.1", server.port)
    after.write(b"GET /health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    alive = await asyncio.wait_for(after_reader.read(), 5)
    after.close()
    server.stop()
    await asyncio.wait_for(running, 5)
    return found, alive, problems


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PIECES)
def test_any_bytes_get_an_answer_or_a_closed_connection(pieces: list[bytes]) -> None:
    """A scanner on the port must not take predictions down."""
    found, alive, problems = asyncio.run(_converse(pieces))
    assert problems == []
    assert found == b"" or found.startswith(b"HTTP/1.1 ")
    assert alive.startswith(b"HTTP/1.1 200 OK")


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"/v2/models/m/infer", b"/v1/pipelines/m/predict", b"/v2/models/m/versions/1/infer"]),
)
def test_any_body_is_answered(body: bytes, path: bytes) -> None:
    """Bad JSON is the caller's mistake, not a server error."""

    answer = routes()(Request(b"POST", path, {}, body))
    assert isinstance(answer, Response)
    assert answer.status in (400, 404)
