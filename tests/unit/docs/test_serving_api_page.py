"""The page on serving's API names what serving answers."""

from pathlib import Path

import pytest
from everloop_serving.domain.columns import _ACCEPTED
from everloop_serving.entrypoints import http_routes
from everloop_serving.proto import inference_pb2

PAGE = (Path(__file__).parents[3] / "docs/reference/serving-api.md").read_text()
FIXED = ["/" + "/".join(parts) for parts in http_routes._FIXED]
OF_MODELS = ["/".join(("/v2/models/{p}", *parts)) for parts in http_routes._MODEL_KINDS]


@pytest.mark.parametrize("route", [*FIXED, *OF_MODELS])
def test_every_route_is_listed(route: str) -> None:
    """A client's author must not have to read our code for what there is."""
    assert f"{route}`" in PAGE


def test_every_route_of_the_page_exists() -> None:
    """A route that nothing answers costs an afternoon."""
    rows = [line for line in PAGE.splitlines() if line.startswith(("| `GET /", "| `POST /"))]
    listed = [
        part.split("`")[0].split(" ")[1] for row in rows for part in row.split("| ")[1].split("`")[1::2]
    ]
    assert len(listed) > len(FIXED)
    for route in listed:
        path = route.replace("{p}", "p").replace("{v}", "1")
        assert http_routes.resolve(path.encode()) is not None, route


def test_every_method_and_type_of_field_is_told() -> None:
    """The same for gRPC, and for what a field takes."""
    service = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert all(f"`{method.name}`" in PAGE for method in service.methods)
    assert all(kind in PAGE for kind in _ACCEPTED)
