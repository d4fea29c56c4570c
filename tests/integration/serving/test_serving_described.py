"""The API does what /openapi.json says, whatever is asked: requests by the description, and broken ones."""

import httpx
import pytest
import schemathesis
from everloop_serving.entrypoints.openapi import DOCUMENT
from hypothesis import given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.integration

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
OPERATIONS = [found.ok() for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]
ASKED = [
    *((operation, GenerationMode.POSITIVE) for operation in OPERATIONS),
    *((operation, GenerationMode.NEGATIVE) for operation in OPERATIONS if operation.body),
]


def test_the_description_is_served(served) -> None:
    """Generators of clients read it from there."""
    assert httpx.get(f"{served.process.url}/openapi.json").json() == DOCUMENT
    assert len(OPERATIONS) == 23


@pytest.mark.parametrize(
    ("operation", "mode"), ASKED, ids=[f"{asked.label} {mode.value}" for asked, mode in ASKED]
)
def test_every_route_answers_as_described(operation, mode, served) -> None:
    """A 500, a status that nobody expects or another shape breaks somebody's generated client."""
    known = {"model": served.name, "pipeline": served.name, "version": "4"}

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=60 if operation.body else 10, derandomize=True, deadline=None)
    def ask(case: Case) -> None:
        names = case.path_parameters or {}
        if len(str(names)) % 2:  # half of the requests meet the model that is there
            case.path_parameters.update({name: known[name] for name in names})
        case.call_and_validate(base_url=served.process.url, checks=CHECKS, timeout=10)

    ask()
