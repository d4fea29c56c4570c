"""The HTTP edge on its real server, with a broker that a test can stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from everloop_ingest.application.submitting import InboundRecord, Overloaded, Unavailable
from everloop_ingest.domain.contract import Contract
from everloop_ingest.entrypoints.body import Budget
from everloop_ingest.entrypoints.http import Edge
from everloop_ingest.entrypoints.idempotency import Remembered
from everloop_ingest.entrypoints.openapi import DOCUMENT
from everloop_kernel.auth import Tokens
from everloop_kernel.health import Health
from everloop_kernel.http_limits import Limits
from everloop_kernel.http_routes import Router
from everloop_kernel.http_server import HttpServer
from everloop_kernel.settings import HttpSettings
from everloop_schemas.pipeline import Pipeline, load
from jsonschema import Draft202012Validator

TEXT = """
pipeline: flights
partition_by: [origin]
observation: {event_time: departure, fields: {origin: {type: category}}}
label: {type: binary, fields: {delay: {type: number}}, value: {late: delay > 15}}
"""
URL = "/v1/pipelines/flights/observations"


class Broker:
    """Remembers what was published; is away, full or slow on demand."""

    def __init__(self) -> None:
        self.records: list[InboundRecord] = []
        self.topics: set[str] = set()
        self.away_after: int | None = None
        self.full = False
        self.go = asyncio.Event()
        self.go.set()
        self.most_under_way = 0
        self._under_way = 0

    async def publish(self, topic, records) -> None:
        self._under_way += len(records)
        self.most_under_way = max(self.most_under_way, self._under_way)
        try:
            await self.go.wait()
            if self.full:
                raise Overloaded("the broker does not keep up")
            if self.away_after is not None and len(self.records) >= self.away_after:
                raise Unavailable("Kafka has not acknowledged the records within 10 s")
            self.records += records
            self.topics.add(topic)
        finally:
            self._under_way -= len(records)


def observation(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"a{number}", "departure": "2026-01-01T05:15:00Z", "origin": "EWR", **changes}


@asynccontextmanager
async def edge(broker: Broker, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running edge; every answer is checked against the API's description."""
    pipeline = load(TEXT)
    assert isinstance(pipeline, Pipeline), pipeline
    contracts = {"flights": Contract(pipeline)}
    made = Edge(
        get=contracts.get,
        knows_all=lambda: options.get("knows_all", True),
        publish=broker.publish,
        max_body_bytes=options.get("max_body_bytes", 100_000),
        budget=Budget(options.get("budget", 8 << 20)),
        remembered=options.get("remembered") or Remembered(1 << 20, 60),
    )
    routes = Router(made.routes(), Tokens(None), Health([]))
    server = HttpServer(
        HttpSettings(http_port=0), routes, options.get("limits", Limits()), streamed=routes.streamed
    )
    running = asyncio.create_task(server.run())
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{server.port}", event_hooks={"response": [_described]}, timeout=20
        ) as client:
            yield client
    finally:
        server.stop()
        await asyncio.wait_for(running, 10)


async def _described(answer: httpx.Response) -> None:
    """Whatever the edge answers to a POST is what /openapi.json says."""
    await answer.aread()
    kind = answer.headers["content-type"]
    if answer.request.method != "POST" or not answer.request.url.path.startswith("/v1/pipelines/"):
        return
    path = answer.request.url.path.replace("/flights/", "/{pipeline}/")
    known = path if path in DOCUMENT["paths"] else "/v1/pipelines/{pipeline}/observations"
    operation = DOCUMENT["paths"][known]["post"]
    described = operation["responses"][str(answer.status_code)]
    for name in described.get("headers", ()):
        assert name in answer.headers
    schema = {**described["content"][kind]["schema"], "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate(answer.json())
