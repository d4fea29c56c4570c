"""What a container engine runs to know whether a service is ready."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from everloop_kernel import healthcheck


class _Service(BaseHTTPRequestHandler):
    status, body = 200, b'{"status": "ready", "components": []}'

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/ready" else 404)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[type[_Service]]:
    class Own(_Service):
        pass

    server = HTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    Own.environment = {
        "EVERLOOP_SERVICE": "registry",
        "EVERLOOP_REGISTRY_HTTP_PORT": str(server.server_address[1]),
    }
    yield Own
    server.shutdown()
    thread.join()
    server.server_close()


def test_ready_service_is_healthy(service, capsys) -> None:
    """An engine that thinks a ready service ill never starts those that wait for it."""
    assert healthcheck.main(service.environment) == 0
    assert capsys.readouterr().err == ""


def test_reasons_of_unready_service_are_told(service, capsys) -> None:
    """`docker inspect` must show what is missing, not only that something is."""
    service.status = 503
    reports = [{"name": "recorder", "ready": False, "reason": "no broker"}, {"name": "outbox", "ready": True}]
    service.body = json.dumps({"status": "not-ready", "components": reports}).encode()
    assert healthcheck.main(service.environment) == 1
    assert capsys.readouterr().err == "recorder: no broker\n"


def test_other_words_are_passed_on(service, capsys) -> None:
    """Whatever answers on that port, what it said must be seen."""
    service.status, service.body = 502, b"a proxy's words"
    assert healthcheck.main(service.environment) == 1
    assert capsys.readouterr().err == "a proxy's words\n"


def test_silence_is_ill(service, capsys, unused_port) -> None:
    """A process that has not bound its port yet must not receive traffic."""
    environment = {**service.environment, "EVERLOOP_REGISTRY_HTTP_PORT": str(unused_port)}
    assert healthcheck.main(environment) == 1
    assert f"nothing answers on port {unused_port}" in capsys.readouterr().err


@pytest.fixture
def unused_port() -> int:
    server = HTTPServer(("127.0.0.1", 0), _Service)
    port = server.server_address[1]
    server.server_close()
    return port


@pytest.mark.parametrize(
    ("service_name", "port"),
    [
        ("ingest", 8001),
        ("feature", 8002),
        ("trainer", 8003),
        ("registry", 8004),
        ("serving", 8080),
        ("monitor", 8000),
    ],
)
def test_port_is_the_settings_own(service_name: str, port: int, monkeypatch) -> None:
    """An image run without any variable must be asked where it listens by default."""
    monkeypatch.delenv(f"EVERLOOP_{service_name.upper()}_HTTP_PORT", raising=False)
    assert healthcheck.port_of(service_name, {}) == port


def test_unnamed_service_is_an_error(capsys) -> None:
    """Outside of our images the command must say what it needs."""
    assert healthcheck.main({}) == 1
    assert "EVERLOOP_SERVICE" in capsys.readouterr().err
