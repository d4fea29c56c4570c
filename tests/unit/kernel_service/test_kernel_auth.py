"""Who may do what."""

import json
import os
import stat

import pytest
from everloop_kernel import auth
from everloop_kernel.auth import Tokens, check_bind, create_token, is_loopback, require
from everloop_kernel.errors import ConfigurationError
from everloop_kernel.health import Health
from everloop_kernel.http import json_response
from everloop_kernel.service import application
from starlette.routing import Route
from starlette.testclient import TestClient


async def approve(request):
    caller = require(request, "operator")
    return json_response({"caller": caller.name})


async def listing(request):
    require(request, "reader")
    return json_response([])


def client(tokens: Tokens) -> TestClient:
    routes = [
        Route("/v1/pipelines/{pipeline}/approve", approve, methods=["POST"]),
        Route("/v1/pipelines", listing),
    ]
    return TestClient(application(routes, tokens, Health([])), base_url="http://127.0.0.1:8004")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tokens.jsonl"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_missing_or_wrong_token_gets_401(file):
    """A stranger must learn how to authenticate and nothing else."""
    create_token(file, "ann", ["operator"])
    for headers in ({}, bearer("everloop_wrong"), {"Authorization": "Basic YTpi"}, bearer("")):
        answer = client(Tokens(file)).post("/v1/pipelines/flights/approve", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == 401


def test_a_role_is_needed(file):
    """A reader's token must not approve a model."""
    reader, operator, admin = (create_token(file, role, [role]) for role in ("reader", "operator", "admin"))
    web = client(Tokens(file))
    assert web.post("/v1/pipelines/flights/approve", headers=bearer(reader)).status_code == 403
    assert web.post("/v1/pipelines/flights/approve", headers=bearer(operator)).json() == {
        "caller": "operator"
    }
    assert web.post("/v1/pipelines/flights/approve", headers=bearer(admin)).status_code == 200
    assert web.get("/v1/pipelines", headers=bearer(operator)).status_code == 200


def test_a_token_may_be_kept_to_pipelines(file):
    """A team's token must not touch another team's pipeline."""
    token = create_token(file, "team", ["operator"], ["flights"])
    web = client(Tokens(file))
    assert web.post("/v1/pipelines/flights/approve", headers=bearer(token)).status_code == 200
    answer = web.post("/v1/pipelines/loans/approve", headers=bearer(token))
    assert (answer.status_code, "loans" in answer.json()["detail"]) == (403, True)


def test_only_hashes_are_kept(file):
    """Whoever reads the file must not be able to use it."""
    token = create_token(file, "ann", ["reader"])
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_revoked_token_stops_working_without_a_restart(file, monkeypatch):
    monkeypatch.setattr(auth, "_RELOAD_SECONDS", 0.0)
    token = create_token(file, "ann", ["reader"])
    tokens = Tokens(file)
    assert tokens.authenticate(f"Bearer {token}") is not None
    other = create_token(file, "bob", ["reader"])
    assert tokens.authenticate(f"bearer {other}") is not None
    file.write_text("")
    assert tokens.authenticate(f"Bearer {token}") is None


def test_a_broken_change_keeps_the_known_tokens(file, monkeypatch):
    """A slip of an editor must not lock everybody out, nor let anybody in."""
    monkeypatch.setattr(auth, "_RELOAD_SECONDS", 0.0)
    token = create_token(file, "ann", ["reader"])
    tokens = Tokens(file)
    file.write_text("{broken")
    assert tokens.authenticate(f"Bearer {token}") is not None
    assert tokens.authenticate("Bearer other") is None


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"name": "a"}',
        json.dumps({"name": "a", "roles": ["king"], "sha256": "0" * 64}),
        json.dumps({"name": "a", "roles": ["reader"], "sha256": "00"}),
    ],
)
def test_a_broken_file_refuses_to_start(file, line):
    file.write_text(f"\n{line}\n")
    with pytest.raises(ConfigurationError, match="line 2"):
        Tokens(file)


def test_a_missing_file_refuses_to_start(file):
    """An unreadable file must not mean that everybody may do everything."""
    with pytest.raises(ConfigurationError, match="everloop token create"):
        Tokens(file)


def test_an_unknown_role_is_refused(file):
    with pytest.raises(ConfigurationError, match="king"):
        create_token(file, "ann", ["king"])
    with pytest.raises(ConfigurationError, match="needs a role"):
        create_token(file, "ann", [])
    assert not file.exists()


def test_loopback_without_tokens_may_do_everything_but_not_a_foreign_page():
    """A page on the internet, open in the operator's browser, must not approve models on localhost."""
    web = client(Tokens(None))
    assert web.post("/v1/pipelines/flights/approve").json() == {"caller": "local"}
    own = {"Origin": "http://localhost:8000"}
    assert web.post("/v1/pipelines/flights/approve", headers=own).status_code == 200
    for origin in ("https://evil.example", "null", "http://[bad"):
        assert web.post("/v1/pipelines/flights/approve", headers={"Origin": origin}).status_code == 403


def test_health_and_metrics_need_no_token(file):
    create_token(file, "ann", ["reader"])
    web = client(Tokens(file))
    assert web.get("/health/live").status_code == 200
    assert web.get("/metrics").status_code == 200


def test_a_bind_beyond_loopback_needs_tokens(file):
    with pytest.raises(ConfigurationError, match=r"EVERLOOP_REGISTRY_HTTP_HOST=0\.0\.0\.0 would let anyone"):
        check_bind("0.0.0.0", Tokens(None), "EVERLOOP_REGISTRY_HTTP_HOST")
    create_token(file, "ann", ["reader"])
    check_bind("0.0.0.0", Tokens(file))
    check_bind("::1", Tokens(None))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.9", True),
        ("localhost", True),
        ("::1", True),
        ("", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback(host, expected):
    assert is_loopback(host) is expected


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises((ConfigurationError, NotADirectoryError)) as caught:
        create_token(blocker / "tokens", "ann", ["reader"])
    assert isinstance(caught.value, ConfigurationError)
    assert os.fspath(blocker) in str(caught.value)
