"""The same trace, read back from a real Jaeger: what the engineer on call will look at."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.jaeger import CannotBuildError, Jaeger, jaeger_binary, running_jaeger
from e2e.small_loop import eventually, traced_prediction
from e2e.test_trace import SIX

pytestmark = [pytest.mark.jaeger, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    try:
        jaeger_binary()
    except CannotBuildError as error:
        pytest.skip(str(error))
    with running_jaeger(tmp_path_factory.mktemp("jaeger")) as running:
        yield running


def test_jaeger_shows_the_whole_way_of_a_prediction(jaeger: Jaeger, tmp_path: Path) -> None:
    """Spans that our own receiver understands are of no use if Jaeger drops their links."""
    with traced_prediction(tmp_path, jaeger.endpoint) as trace_id:
        eventually("Jaeger shows all six", lambda: services_of(followed(jaeger, trace_id)) == SIX, 30)
    traces = followed(jaeger, trace_id)
    own = traces[trace_id]
    (infer,) = [span for span in own["spans"] if span["operationName"].startswith("infer ")]
    links = [ref for ref in infer["references"] if ref["refType"] == "FOLLOWS_FROM"]
    (loaded,) = [ref for ref in links if ref["traceID"] != trace_id]
    (source,) = [span for span in traces[loaded["traceID"]]["spans"] if span["spanID"] == loaded["spanID"]]
    assert source["operationName"] == "load model"


def followed(jaeger: Jaeger, trace_id: str) -> dict[str, dict]:
    """A trace and those that its spans' links lead back to, by id."""
    found: dict[str, dict] = {}
    waiting = {trace_id}
    while waiting:
        found |= {one: jaeger.trace(one) for one in waiting}
        spans = [span for trace in found.values() for span in trace["spans"]]
        waiting = {ref["traceID"] for span in spans for ref in span.get("references", [])} - found.keys()
    return found


def services_of(traces: dict[str, dict]) -> set[str]:
    return {
        trace["processes"][span["processID"]]["serviceName"]
        for trace in traces.values()
        for span in trace["spans"]
    }
