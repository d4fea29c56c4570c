"""Traces over OTLP/HTTP, carried through Kafka in W3C `traceparent` headers.

Without an endpoint nothing is loaded and each function returns at once. A consumer of a batch makes one span
that LINKS to the spans of its producers (deduplicated, at most 64), as the messaging conventions ask.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
)
from opentelemetry.util.types import AttributeValue

from everloop_kernel.errors import one_line
from everloop_kernel.settings import PlatformSettings

__all__ = [
    "batch_span",
    "configure",
    "enabled",
    "extract",
    "inject",
    "links",
    "messaging_attributes",
    "process_span",
    "shut_down",
    "span",
    "traceparent",
    "tracer",
]

Headers = Iterable[tuple[str, bytes | None]]
"""Kafka headers as aiokafka gives them."""


class Consumed(Protocol):
    """A record that was read from a partition."""

    @property
    def headers(self) -> Headers:
        """Its headers."""
        ...

    @property
    def offset(self) -> int:
        """Its place in the partition."""
        ...


LINK_LIMIT: Final = 64
_HEADER: Final = "traceparent"
_LENGTH: Final = 55  # version 00: 2-32-16-2 hexadecimal digits


class _State:
    """Whether spans are exported: set once, by `configure`."""

    enabled = False


def configure(service: str, platform: PlatformSettings) -> None:
    """Export the spans of `everloop-<service>`; without an endpoint, do nothing."""
    if platform.otlp_endpoint is None or _State.enabled:
        return
    # imported here: a process without telemetry does not pay for the SDK
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415

    provider = TracerProvider(
        resource=Resource.create({"service.name": f"everloop-{service}", "service.namespace": "everloop"}),
        sampler=ParentBased(TraceIdRatioBased(platform.trace_ratio)),
        shutdown_on_exit=False,
    )
    endpoint = f"{platform.otlp_endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
    trace.set_tracer_provider(provider)
    _State.enabled = True


def shut_down() -> None:
    """Send what is still queued; blocks for a few seconds at most, so call it from a thread."""
    provider = trace.get_tracer_provider()
    shutdown = getattr(provider, "shutdown", None)
    if _State.enabled and shutdown is not None:
        shutdown()
        _State.enabled = False


def enabled() -> bool:
    """Whether spans are exported."""
    return _State.enabled


def tracer(name: str) -> Tracer:
    """A tracer for a module; it costs next to nothing when telemetry is off."""
    return trace.get_tracer(name)


def traceparent() -> str | None:
    """The current span in W3C form, or None outside of a span."""
    if not _State.enabled:
        return None
    context = trace.get_current_span().get_span_context()
    return _format(context) if context.is_valid else None


def _format(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def inject(headers: list[tuple[str, bytes]]) -> None:
    """Append the current span's `traceparent` to Kafka headers that have none."""
    current = traceparent()
    if current is not None and not any(name == _HEADER for name, _ in headers):
        headers.append((_HEADER, current.encode()))


def extract(headers: Headers) -> Context | None:
    """The producer's span as a parent context, or None: missing, malformed, or telemetry is off."""
    context = _span_context(headers) if _State.enabled else None
    return None if context is None else trace.set_span_in_context(trace.NonRecordingSpan(context))


def links(headers_of_batch: Iterable[Headers], limit: int = LINK_LIMIT) -> list[Link]:
    """Links to the distinct spans that produced a batch, in the batch's order, at most `limit`."""
    if not _State.enabled:
        return []
    found: dict[tuple[int, int], Link] = {}
    for headers in headers_of_batch:
        context = _span_context(headers)
        if context is not None:
            found.setdefault((context.trace_id, context.span_id), Link(context))
            if len(found) >= limit:
                break
    return list(found.values())


def _span_context(headers: Headers) -> SpanContext | None:
    for name, value in headers:
        if name == _HEADER:
            return _parse(value)
    return None


def _parse(value: bytes | None) -> SpanContext | None:
    """A W3C traceparent; anything malformed is no trace, since it comes from outside."""
    if value is None or len(value) < _LENGTH:
        return None
    try:
        version, trace_id, span_id, flags = value.decode("ascii").split("-")[:4]
        context = SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
        )
    except (UnicodeDecodeError, ValueError):
        return None
    return context if context.is_valid and version != "ff" else None


def messaging_attributes(
    operation: str,
    topic: str,
    *,
    group: str | None = None,
    partition: int | None = None,
    count: int | None = None,
) -> dict[str, AttributeValue]:
    """OpenTelemetry's messaging attributes for Kafka; `operation` is `send`, `process` or `receive`."""
    attributes: dict[str, AttributeValue] = {
        "messaging.system": "kafka",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
    }
    if group is not None:
        attributes["messaging.consumer.group.name"] = group
    if partition is not None:
        attributes["messaging.destination.partition.id"] = str(partition)
    if count is not None:
        attributes["messaging.batch.message_count"] = count
    return attributes


@contextmanager
def batch_span(
    name: str, headers_of_batch: Sequence[Headers], attributes: Mapping[str, AttributeValue] | None = None
) -> Iterator[Span]:
    """The span of handling a batch (`process <topic>`), current inside the block, linked to its producers.

    A batch of one continues its producer's trace; a larger one starts a new trace with links.
    """
    if not _State.enabled:
        yield INVALID_SPAN
        return
    parent = extract(headers_of_batch[0]) if len(headers_of_batch) == 1 else Context()
    with _recorded(name, SpanKind.CONSUMER, parent, links(headers_of_batch), attributes) as current:
        yield current


def process_span(
    group: str, topic: str, partition: int, records: Sequence[Consumed]
) -> AbstractContextManager[Span]:
    """The span of handling a batch of one partition's records; see `batch_span`."""
    if not _State.enabled:
        return nullcontext(INVALID_SPAN)
    attributes = messaging_attributes("process", topic, group=group, partition=partition, count=len(records))
    attributes["messaging.kafka.offset"] = records[0].offset
    return batch_span(f"process {topic}", [record.headers for record in records], attributes)


@contextmanager
def span(
    name: str,
    attributes: Mapping[str, AttributeValue] | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: Context | None = None,
    linked: Sequence[Link] = (),
) -> Iterator[Span]:
    """A span that is current inside the block; `parent` None continues the current one."""
    if not _State.enabled:
        yield INVALID_SPAN
        return
    with _recorded(name, kind, parent, linked, attributes) as current:
        yield current


@contextmanager
def _recorded(
    name: str,
    kind: SpanKind,
    parent: Context | None,
    linked: Sequence[Link],
    attributes: Mapping[str, AttributeValue] | None,
) -> Iterator[Span]:
    """Start the span and mark it as failed by one line, not by a traceback with data in it."""
    with tracer("everloop").start_as_current_span(
        name, parent, kind, attributes, linked, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(Status(StatusCode.ERROR, one_line(error)))
            current.set_attribute("error.type", type(error).__name__)
            raise
