"""Routes on the kernel's own server: who may ask, what is wrong, what is counted."""

import asyncio
import json

import pytest
from everloop_kernel.auth import Tokens, create_token
from everloop_kernel.health import Health
from everloop_kernel.http import Problem
from everloop_kernel.http_message import Request, Response, json_response
from everloop_kernel.http_routes import Call, Route, Router


async def names(call: Call) -> Response:
    call.require("producer")
    return json_response({**call.parameters, "caller": call.caller.name}, 202)


def refuses(call: Call) -> Response:
    raise Problem(422, "Unusable", "Send a number.", headers={"Retry-After": "1"}, problems=[1])


async def breaks(call: Call) -> Response:
    raise KeyError("secret inner detail")


ROUTES = [
    Route("/v1/pipelines/{pipeline}/labels", {b"POST": names, b"DELETE": refuses}, streams=True),
    Route("/refuses", {b"GET": refuses}),
    Route("/breaks", {b"GET": breaks}),
]


class Part:
    name = "part"
    reason: str | None = None

    def not_ready(self) -> str | None:
        return self.reason


def router(tokens: Tokens | None = None, part: Part | None = None) -> Router:
    return Router(ROUTES, tokens or Tokens(None), Health([part or Part()]))


def ask(routes: Router, method: str, target: str, **headers: str) -> tuple[Response, dict]:
    given = {name.encode(): value.encode() for name, value in headers.items()}

    async def answered() -> Response:
        answer = routes(Request(method.encode(), target.encode(), given, b""))
        return answer if isinstance(answer, Response) else await answer

    found = asyncio.run(answered())
    return found, json.loads(found.body) if found.body.startswith(b"{") else {}


def test_parameters_are_decoded_and_queries_ignored() -> None:
    """Ids may hold any character."""
    answer, body = ask(router(), "POST", "/v1/pipelines/a%2Fb%20c/labels?x=1")
    assert (answer.status, body) == (202, {"pipeline": "a/b c", "caller": "local"})


@pytest.mark.parametrize(
    ("method", "target", "status", "title"),
    [
        ("GET", "/nope", 404, "Not Found"),
        ("POST", "/v1/pipelines/%ff/labels", 404, "Not Found"),
        ("GET", "/v1/pipelines/a/labels", 405, "Method Not Allowed"),
        ("GET", "/refuses", 422, "Unusable"),
        ("HEAD", "/refuses", 422, "Unusable"),
        ("GET", "/breaks", 500, "Internal error"),
    ],
)
def test_every_failure_is_a_problem(method: str, target: str, status: int, title: str) -> None:
    """Clients parse one form of error, and no traceback reaches them."""
    answer, body = ask(router(), method, target)
    assert (answer.status, answer.content_type) == (status, b"application/problem+json")
    assert (body["status"], body["title"], body["type"]) == (status, title, "about:blank")
    assert "secret" not in body["detail"]


def test_a_wrong_method_is_told_the_right_ones() -> None:
    """RFC 9110 asks for it, and people need it."""
    answer, _ = ask(router(), "GET", "/v1/pipelines/a/labels")
    assert dict(answer.headers)[b"Allow"] == b"DELETE, POST"


def test_tokens_are_asked_for_everywhere_but_health(tmp_path) -> None:
    """An open port must not be an open door."""
    path = tmp_path / "tokens"
    producer = create_token(path, "p", ["producer"], ["a"])
    routes = router(Tokens(path))
    assert ask(routes, "GET", "/health/live")[0].status == 200
    assert ask(routes, "GET", "/metrics")[0].status == 200
    refused, _ = ask(routes, "POST", "/v1/pipelines/a/labels")
    assert refused.status == 401
    assert dict(refused.headers)[b"WWW-Authenticate"].startswith(b"Bearer")
    assert ask(routes, "GET", "/nope")[0].status == 401
    mine = {"authorization": f"Bearer {producer}"}
    assert ask(routes, "POST", "/v1/pipelines/a/labels", **mine)[0].status == 202
    assert ask(routes, "POST", "/v1/pipelines/b/labels", **mine)[0].status == 403


def test_a_foreign_page_is_refused_where_no_tokens_are() -> None:
    """Any web page could otherwise write to a developer's own machine."""
    answer, _ = ask(router(), "POST", "/v1/pipelines/a/labels", origin="https://evil.example")
    assert answer.status == 403
    own, _ = ask(router(), "POST", "/v1/pipelines/a/labels", origin="http://localhost:8000")
    assert own.status == 202


def test_readiness_and_counts() -> None:
    """On call: which part is not ready; and ids never become time series."""
    part = Part()
    routes = router(part=part)
    assert ask(routes, "GET", "/health/ready")[0].status == 200
    part.reason = "no broker"
    answer, body = ask(routes, "GET", "/health/ready")
    assert (answer.status, body["components"][0]["reason"]) == (503, "no broker")
    ask(routes, "POST", "/v1/pipelines/a-special-id/labels")
    metrics = ask(routes, "GET", "/metrics")[0].body.decode()
    assert 'route="/v1/pipelines/{pipeline}/labels",status="202"' in metrics
    assert "a-special-id" not in metrics


def test_only_what_streams_is_handed_over_early() -> None:
    """A refused method's body is of no interest to anyone."""
    routes = router()
    assert routes.streamed(Request(b"POST", b"/v1/pipelines/a/labels", {}, b""))
    assert not routes.streamed(Request(b"GET", b"/v1/pipelines/a/labels", {}, b""))
    assert not routes.streamed(Request(b"POST", b"/nope", {}, b""))


def test_many_targets_do_not_fill_the_memory() -> None:
    """Ids in paths are without end."""
    routes = router()
    for number in range(5000):
        ask_target = Request(b"GET", b"/v1/pipelines/%d/labels" % number, {}, b"")
        routes(ask_target)
    assert len(routes._found) <= 2048
