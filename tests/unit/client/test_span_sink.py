"""The receiver of spans, and how a trace is followed through links."""

from everloop.otlp import Span, SpanSink, follow
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link


def span(trace: str, service: str = "s", *, links: tuple[str, ...] = ()) -> Span:
    return Span(trace, "01", "", service, "work", 0, 1, {}, tuple((link, "01") for link in links))


def test_real_spans_arrive_with_links_and_attributes():
    """What an engineer follows at night must be what the services sent."""
    with SpanSink() as sink:
        provider = TracerProvider(resource=Resource.create({"service.name": "everloop-ingest"}))
        exporter = OTLPSpanExporter(endpoint=f"{sink.endpoint}/v1/traces")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracer = provider.get_tracer("test")
        with tracer.start_as_current_span("produce") as produced:
            pass
        links = [Link(produced.get_span_context())]
        with tracer.start_as_current_span("consume", links=links, attributes={"records": 3}):
            pass
        provider.shutdown()
    first, second = sink.spans()
    assert (first.name, first.service) == ("produce", "everloop-ingest")
    assert second.links == ((first.trace_id, first.span_id),)
    assert second.attributes == {"records": 3}


def test_following_goes_back_through_links_transitively():
    """A prediction leads to its model's run, and that to the data, over three traces."""
    spans = [
        span("c", "serving", links=("b",)),
        span("b", "trainer", links=("a",)),
        span("a", "ingest"),
        span("x"),
    ]
    assert {one.service for one in follow(spans, "c")} == {"serving", "trainer", "ingest"}


def test_following_goes_on_to_direct_consumers_alone():
    """The monitor that joined this prediction belongs to it; what else was in its batch does not."""
    spans = [span("p", "serving"), span("m", "monitor", links=("p", "other")), span("other", "serving-2")]
    assert {one.service for one in follow(spans, "p")} == {"serving", "monitor"}


def test_links_in_a_circle_end():
    """Two traces that point at each other must not hang the demo."""
    assert len(follow([span("a", links=("b",)), span("b", links=("a",))], "a")) == 2


def test_spans_are_written_as_json_lines(tmp_path):
    """A trace that was received can be looked at later."""
    with SpanSink() as sink:
        pass
    assert sink.write(tmp_path / "spans.jsonl") == 0
