"""One trace of a whole loop: from the rows that were published to the prediction's outcome."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from e2e.small_loop import PIPELINE, eventually, traced_prediction
from everloop.otlp import Span, SpanSink, follow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SIX = {f"everloop-{name}" for name in ("ingest", "feature", "trainer", "registry", "serving", "monitor")}


@dataclass(frozen=True)
class Trace:
    """A prediction's trace with all that its links lead to."""

    trace_id: str
    spans: list[Span]

    def named(self, service: str, start: str) -> list[Span]:
        return [s for s in self.spans if s.service == f"everloop-{service}" and s.name.startswith(start)]

    def origins(self, span: Span) -> list[Span]:
        """The spans that this one continues or links to."""
        ids = {span.parent_id, *(span_id for _, span_id in span.links)}
        return [one for one in self.spans if one.span_id in ids]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trace]:
    with SpanSink() as sink:
        with traced_prediction(tmp_path_factory.mktemp("trace"), sink.endpoint) as trace_id:
            eventually(
                f"spans of {SIX} have come",
                lambda: {span.service for span in follow(sink.spans(), trace_id)} >= SIX,
                30,
            )
        yield Trace(trace_id, follow(sink.spans(), trace_id))


def test_all_six_services_are_in_one_trace(trace: Trace) -> None:
    """Whoever is on call must see in one place which data, run and approval a prediction stands on."""
    assert {span.service for span in trace.spans} == SIX


def test_prediction_leads_to_the_loading_of_its_model(trace: Trace) -> None:
    """A wrong answer must lead to the deployment that brought its model."""
    (infer,) = trace.named("serving", f"infer {PIPELINE}")
    assert infer.trace_id == trace.trace_id
    assert [span.name for span in trace.origins(infer)] == ["load model"]
    (deployment,) = trace.origins(trace.origins(infer)[0])
    assert [span.name for span in trace.origins(deployment)] == ["send registry-deployment-changed-v1"]


def test_approval_leads_to_the_run(trace: Trace) -> None:
    """An approval must lead to the training that it judged."""
    (trained,) = trace.named("trainer", "send trainer-model-trained-v1")
    judged = trace.named("registry", "judge trainer-model-trained-v1")
    assert trained in trace.origins(judged[0])
    assert [span.name for span in trace.origins(trained)] == ["train"]


def test_run_leads_to_its_vectors_and_they_to_the_data(trace: Trace) -> None:
    """A bad model must lead to the rows, as published, that its features were computed from."""
    (run,) = trace.origins(trace.named("trainer", "send trainer-model-trained-v1")[0])
    recorded = [span for span in trace.origins(run) if "feature-vector-computed" in span.name]
    assert recorded, [span.name for span in trace.origins(run)]
    (computed, *_) = trace.origins(recorded[0])
    assert computed.service == "everloop-feature"
    (accepted, *_) = trace.origins(computed)
    assert accepted.service == "everloop-ingest"
    assert any(span.name.startswith("POST ") for span in trace.origins(accepted))


def test_monitor_continues_the_prediction(trace: Trace) -> None:
    """What the monitor says about a prediction must be found from its trace."""
    (joined, *_) = trace.named("monitor", f"process serving-prediction-made-v1.{PIPELINE}")
    assert trace.named("serving", "infer")[0] in trace.origins(joined)
