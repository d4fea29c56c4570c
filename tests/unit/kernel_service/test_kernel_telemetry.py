"""Traces go on across Kafka; without an endpoint nothing happens and nothing is loaded."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from everloop_kernel import telemetry
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-01"


@pytest.fixture
def spans(monkeypatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry._State, "enabled", True)
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer)
    return exporter


def test_without_an_endpoint_nothing_is_loaded():
    """A user without a collector must not pay memory or time for one."""
    code = (
        "import sys; from everloop_kernel import telemetry;"
        "from everloop_kernel.settings import PlatformSettings;"
        "telemetry.configure('x', PlatformSettings());"
        "print(any(m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter')) for m in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_off_is_silent():
    headers: list[tuple[str, bytes]] = []
    telemetry.inject(headers)
    assert headers == []
    assert telemetry.links([[("traceparent", PARENT)]]) == []
    assert telemetry.extract([("traceparent", PARENT)]) is None
    with telemetry.batch_span("process t", [[("traceparent", PARENT)]]):
        assert telemetry.traceparent() is None


def test_a_single_record_continues_its_producers_trace(spans):
    """An operator who follows one prediction must not lose it at a topic."""
    with telemetry.batch_span("process t", [[("traceparent", PARENT)]], {"a": 1}):
        headers: list[tuple[str, bytes]] = []
        telemetry.inject(headers)
        telemetry.inject(headers)
    (span,) = spans.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert headers == [
        ("traceparent", f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01".encode())
    ]


def test_a_batch_links_to_each_producer_once(spans):
    """A batch of ten thousand must not carry ten thousand links, nor pretend to have one parent."""
    batch = [[("traceparent", PARENT)]] * 1000 + [[("traceparent", OTHER)]] + [[]]
    with telemetry.batch_span("process t", batch):
        pass
    (span,) = spans.get_finished_spans()
    assert span.parent is None
    assert [f"{link.context.span_id:016x}" for link in span.links] == ["b7ad6b7169203331", "b7ad6b7169203332"]
    many = [
        [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-%016x-01" % number)]
        for number in range(1, 500)
    ]
    assert len(telemetry.links(many)) == 64


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"00-zz",
        b"\xff" * 55,
        b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
        b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        PARENT.replace(b"-", b"_"),
    ],
)
def test_a_malformed_header_is_no_trace(spans, value):
    """Headers come from strangers: none may break a batch."""
    assert telemetry.extract([("traceparent", value)]) is None
    assert telemetry.links([[("traceparent", value)]]) == []


def test_a_failed_span_says_so_in_one_line(spans):
    with pytest.raises(KeyError), telemetry.span("work"):
        raise KeyError("x")
    (span,) = spans.get_finished_spans()
    assert span.status.description == "KeyError: 'x'"
    assert span.attributes["error.type"] == "KeyError"
    assert not span.events


def test_conventions():
    found = telemetry.messaging_attributes("process", "topic", group="g", partition=3, count=7)
    assert found["messaging.system"] == "kafka"
    assert found["messaging.destination.name"] == "topic"
    assert found["messaging.consumer.group.name"] == "g"
    assert found["messaging.destination.partition.id"] == "3"
    assert found["messaging.batch.message_count"] == 7


def test_the_current_span_is_kept(spans):
    with telemetry.span("outer"):
        outer = trace.get_current_span()
        with telemetry.span("inner"):
            assert trace.get_current_span() is not outer
        assert trace.get_current_span() is outer
