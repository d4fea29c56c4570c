"""A small receiver of OpenTelemetry spans (OTLP over HTTP, protobuf), for the demo and for tests.

```python
with SpanSink() as sink:
    ...  # processes with EVERLOOP_OTLP_ENDPOINT=sink.endpoint
    print(follow(sink.spans(), trace_id))
```
"""

import gzip
import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

__all__ = ["Span", "SpanSink", "follow"]

_MOST_BYTES = 256 * 1024 * 1024
_LONGEST_BODY = 64 * 1024 * 1024

AttributeValue = str | bool | int | float


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Ids are hexadecimal; a root has an empty `parent_id`; times are Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, AttributeValue]
    links: tuple[tuple[str, str], ...]
    """(trace id, span id) of what this span came from."""


class SpanSink:
    """Listens on the loopback and keeps what arrives; the oldest is dropped beyond 256 MiB.

    Args:
        port: 0 takes a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self._bodies: deque[tuple[bytes, bool]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self.dropped_bodies = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    @property
    def endpoint(self) -> str:
        """What EVERLOOP_OTLP_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> Self:
        """Begin to receive."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop receiving; what came in stays readable."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def spans(self) -> list[Span]:
        """Everything received so far. It is decoded now: receiving must cost the traced processes little."""
        with self._lock:
            bodies = list(self._bodies)
        return [
            span for body, packed in bodies for span in _decode(gzip.decompress(body) if packed else body)
        ]

    def write(self, path: Path) -> int:
        """Write one JSON object a span and line; returns how many."""
        spans = self.spans()
        path.write_text("".join(json.dumps(asdict(span)) + "\n" for span in spans))
        return len(spans)

    def receive(self, body: bytes, *, packed: bool) -> None:
        """Keep one export request."""
        with self._lock:
            self._bodies.append((body, packed))
            self._bytes += len(body)
            while self._bytes > _MOST_BYTES:
                self._bytes -= len(self._bodies.popleft()[0])
                self.dropped_bodies += 1

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def follow(spans: Sequence[Span], trace_id: str) -> list[Span]:
    """All spans of a trace, of the traces that its links lead back to, and of those that link to it.

    Going back is transitive: a prediction's span links to the swap that loaded its model, and that one's
    trace to the run and its data. Going on is one step, to what consumed the trace's own events: further,
    every trace that once shared a batch would belong to it.
    """
    traces = _by_trace(spans)
    reached, waiting = set(), {trace_id}
    while waiting:
        reached |= waiting
        waiting = {link for one in waiting for span in traces[one] for link, _ in span.links} - reached
    reached |= {span.trace_id for span in spans if any(link == trace_id for link, _ in span.links)}
    return [span for one in sorted(reached) for span in traces[one]]


def _by_trace(spans: Iterable[Span]) -> defaultdict[str, list[Span]]:
    traces: defaultdict[str, list[Span]] = defaultdict(list)
    for span in spans:
        traces[span.trace_id].append(span)
    return traces


def _decode(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        about = {entry.key: _value(entry.value) for entry in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    service=str(about.get("service.name", "")),
                    name=span.name,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes={entry.key: _value(entry.value) for entry in span.attributes},
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                )


def _value(value: AnyValue) -> AttributeValue:
    kind = value.WhichOneof("value")
    found = getattr(value, kind) if kind else ""
    return found if isinstance(found, str | bool | int | float) else str(found)


def _handler_of(sink: SpanSink) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Takes traces; other signals are accepted and forgotten."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if length > _LONGEST_BODY:
                self.send_error(413)
                return
            body = self.rfile.read(length)
            if self.path.rstrip("/").endswith("/v1/traces"):
                sink.receive(body, packed=self.headers.get("Content-Encoding") == "gzip")
            self._acknowledge()

        def _acknowledge(self) -> None:
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing: each export would be a line."""

    return Handler
