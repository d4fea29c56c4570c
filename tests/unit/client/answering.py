"""An HTTP server that stands for every service, and answers what a test says."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Answering(ThreadingHTTPServer):
    """`answers` maps "METHOD /path" to (status, body), or to a list of them, of which the last stays."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.seen: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, asked: str) -> tuple[int, Any]:
        found = self.answers.get(asked, (404, {"detail": f"nothing at {asked}"}))
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = f"{self.command} {self.path}"
        self.server.seen.append((asked, body))
        status, found = self.server.answer(asked)
        data = found.encode() if isinstance(found, str) else json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(answers: dict[str, Any]) -> Iterator[Answering]:
    server = Answering(answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
