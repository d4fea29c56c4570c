"""Answers and errors over HTTP."""

import pytest
from everloop_kernel.auth import Tokens
from everloop_kernel.health import Health
from everloop_kernel.http import Problem, json_response, problem, serial
from everloop_kernel.service import application
from starlette.routing import Route
from starlette.testclient import TestClient


class Part:
    name = "recorder"
    reason: str | None = None

    def not_ready(self) -> str | None:
        return self.reason


async def raises(request):
    raise Problem(422, "Unusable", "Send a number.", problems=[{"field": "a"}])


async def breaks(request):
    raise KeyError("secret inner detail")


async def numbers(request):
    return json_response({"loss": float("nan"), "text": "é"}, 202)


async def numbered(request):
    return json_response({"version": serial(request, "version")})


def client(state: Health | None = None) -> TestClient:
    routes = [
        Route("/raises/{id}", raises),
        Route("/breaks", breaks),
        Route("/numbers", numbers),
        Route("/versions/{version}", numbered),
    ]
    return TestClient(application(routes, Tokens(None), state or Health([])), raise_server_exceptions=False)


def test_a_problem_says_what_to_do():
    answer = client().get("/raises/1")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Unusable",
        "status": 422,
        "detail": "Send a number.",
        "problems": [{"field": "a"}],
    }


def test_a_defect_shows_no_inner_detail():
    """No traceback and no inner text may reach a caller."""
    answer = client().get("/breaks")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["title"] == "Internal error"


@pytest.mark.parametrize("text", ["2147483648", "9" * 5000, "-1", "1.5", "²", "\u0663", "x"])
def test_a_number_that_no_version_has_is_not_found(text):
    """Postgres cannot even look for it; unchecked that is a defect of ours, and a traceback in the log."""
    answer = client().get(f"/versions/{text}")
    assert (answer.status_code, answer.json()["title"]) == (404, "Not found")
    assert "2147483647" in answer.json()["detail"]


def test_a_number_is_read():
    assert client().get("/versions/2147483647").json() == {"version": 2**31 - 1}


@pytest.mark.parametrize("target", ["/breaks%00", "/raises/a%00b", "/numbers?pipeline=%00"])
def test_a_name_with_nul_is_not_found(target):
    """PostgreSQL has no such text, so no page may ask it for one."""
    answer = client().get(target)
    assert (answer.status_code, answer.json()["detail"]) == (404, "Names hold no NUL character.")


def test_unknown_routes_and_methods_are_problems():
    assert client().get("/nope").json()["status"] == 404
    answer = client().post("/numbers")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


def test_not_a_number_becomes_null():
    """A NaN in JSON breaks every strict client."""
    answer = client().get("/numbers")
    assert (answer.status_code, answer.json()) == (202, {"loss": None, "text": "é"})


def test_problem_is_a_response():
    assert problem(404, "No such pipeline", "…").status_code == 404


def test_readiness_names_each_reason():
    """Who is called at night must see which part is not ready, and why."""
    part = Part()
    state = Health([part])
    web = client(state)
    assert web.get("/health/ready").json() == {
        "status": "ready",
        "components": [{"name": "recorder", "ready": True}],
    }
    part.reason = "PostgreSQL does not answer"
    answer = web.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["components"] == [
        {"name": "recorder", "ready": False, "reason": "PostgreSQL does not answer"}
    ]
    assert web.get("/health/live").status_code == 200


def test_a_draining_process_is_not_ready():
    """A load balancer must stop sending before the process ends."""
    state = Health([Part()])
    state.draining = True
    answer = client(state).get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "draining")


def test_requests_are_counted_by_route():
    """Ids in paths must not become time series without end."""
    web = client()
    web.get("/raises/a-very-special-id")
    metrics = web.get("/metrics").text
    assert 'everloop_http_requests_total{method="GET",route="/raises/{id}",status="422"}' in metrics
    assert "a-very-special-id" not in metrics
