"""One demo from the first record to the report."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
from audit import Audit, audit
from everloop.otlp import SpanSink, follow
from everloop.stack import Stack
from everloop_schemas import events
from flights_data import Flights
from fresh import Fresh
from replay import PIPELINE, Pace, Replay
from report import Measured, build, shortcomings
from rich.console import Console
from screen import Screen
from watch import Watch

SETTLE_SECONDS = 60
LAG_SECONDS = 120
LAG_PAUSE_SECONDS = 1
MEMORY_SECONDS = 5
OFFER_BAD_DAYS_BEFORE_END = 14
"""When no version has been rejected by then, one is offered that its gates must refuse."""
BAD_MODEL = {"trees": 1, "learning_rate": 0.001}
LAG_LIMIT = 30_000
"""Records that the platform may be behind before the clock of the replay waits."""


@dataclass(frozen=True)
class Plan:
    """What is replayed, and how fast."""

    flights: Flights
    pipeline: Path
    days: int
    seconds: float
    whole: bool


class Demo:
    """Drives a running stack; `run` returns the report and what is wrong with it."""

    def __init__(self, plan: Plan, *, stack: Stack, sink: SpanSink, console: Console, began: float) -> None:
        self._plan = plan
        self._stack = stack
        self._sink = sink
        self._began = began
        self._peak = 0
        self._lag = 0
        self._phases = {"start": time.monotonic() - began}
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        address = stack.addresses
        self._fresh = Fresh(address.kafka, PIPELINE)
        self._replay = Replay(self._client, self._fresh, ingest=address.ingest, serving=address.serving)
        first, last = plan.flights.observations[0][0], plan.flights.labels[-1][0]
        self._screen = Screen(console, first=first, last=last)
        self._watch = Watch(address.kafka, self._screen.tell)
        self._pace = Pace(until=last, seconds=plan.seconds)

    async def run(self) -> tuple[dict[str, Any], list[str]]:
        """Apply the pipeline, replay, let the loop settle, and account for everything."""
        beside = [
            asyncio.create_task(part)
            for part in (self._watch.run(), self._draw(), self._weigh(), self._measure_lag())
        ]
        try:
            with self._screen:
                with self._phase("replay"):
                    await self._apply()
                    beside.append(asyncio.create_task(self._fresh.run()))
                    await self._replay.run(self._plan.flights, self._pace, self._each_day)
                with self._phase("settle"):
                    joined = await self._settle()
            with self._phase("audit"):
                found = await audit(self._stack.addresses.kafka, PIPELINE)
            return self._account(found, joined)
        finally:
            for task in beside:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await self._client.close()

    async def _apply(self) -> None:
        url = f"{self._stack.addresses.registry}/v1/pipelines/{PIPELINE}"
        async with self._client.put(url, data=self._plan.pipeline.read_bytes()) as response:
            response.raise_for_status()
        await self._until(self._pipeline_known, 30, "ingest does not know the pipeline")

    async def _pipeline_known(self) -> bool:
        url = f"{self._stack.addresses.ingest}/v1/pipelines/{PIPELINE}/observations"
        async with self._client.post(url, json=[]) as response:
            return response.status != HTTPStatus.NOT_FOUND

    async def _draw(self) -> None:
        while True:
            self._screen.show(self._replay, time.monotonic())
            await asyncio.sleep(0.5)

    async def _weigh(self) -> None:
        while True:
            self._peak = max(self._peak, await asyncio.to_thread(self._stack.memory_bytes))
            await asyncio.sleep(MEMORY_SECONDS)

    async def _each_day(self, day: int) -> None:
        self._screen.day(self._replay)
        if day >= self._plan.days - OFFER_BAD_DAYS_BEFORE_END and self._plan.whole:
            await self._offer_bad_model()
        await self._until(self._caught_up, LAG_SECONDS, "the services stay behind")
        if not self._replay.served:
            # nobody can be answered yet, so the clock waits for the first model
            await self._until(self._decided, SETTLE_SECONDS, "the first run has not ended")
        if not self._replay.served and self._watch.of(events.ModelApproved):
            await self._first_model()

    async def _caught_up(self) -> bool:
        return self._lag <= LAG_LIMIT

    async def _measure_lag(self) -> None:
        while True:
            self._lag = await self._stack.lag()
            await asyncio.sleep(LAG_PAUSE_SECONDS)

    async def _first_model(self) -> None:
        """Wait for the first swap, then keep that version reachable to compare with."""
        await self._until(self._loaded, 30, "the first model was not loaded")
        first = self._watch.of(events.ModelApproved)[0].model_version
        base = f"{self._stack.addresses.registry}/v1/pipelines/{PIPELINE}"
        await self._post(f"{base}/pins/{first}", {"by": "demo", "reason": "compare"})
        ready = f"{self._stack.addresses.serving}/v2/models/{PIPELINE}/versions/{first}/ready"
        await self._until(lambda: self._answers(ready), 30, "the pinned version does not answer")
        self._replay.frozen_version = first
        self._replay.served = True

    async def _loaded(self) -> bool:
        return any(event.loaded for event in self._watch.of(events.ModelLoaded))

    async def _answers(self, url: str) -> bool:
        async with self._client.get(url) as response:
            return response.ok

    async def _post(self, url: str, body: dict[str, Any]) -> None:
        async with self._client.post(url, json=body) as response:
            response.raise_for_status()

    async def _offer_bad_model(self) -> None:
        if self._watch.of(events.ModelRejected) or getattr(self, "_offered", False):
            return
        self._offered = True
        url = f"{self._stack.addresses.trainer}/v1/pipelines/{PIPELINE}/runs"
        body = {"reason": "a model that its gates must refuse", "parameters": BAD_MODEL}
        await self._post(url, body)

    async def _settle(self) -> int:
        """Wait until every run has ended and every prediction whose label came is joined."""
        await self._until(self._runs_ended, SETTLE_SECONDS, "a run has not ended")
        expected = self._replay.ledger.losses.rows
        joined = 0
        limit = time.monotonic() + SETTLE_SECONDS
        while joined < expected and time.monotonic() < limit:
            joined = await self._joined()
            await asyncio.sleep(0.3)
        return joined

    async def _runs_ended(self) -> bool:
        return await self._decided() and not await self._stack.lag()

    async def _decided(self) -> bool:
        ended = {
            e.run_id
            for kind in (events.ModelApproved, events.ModelRejected, events.RunFailed)
            for e in self._watch.of(kind)
        }
        return all(e.run_id in ended for e in self._watch.of(events.RunStarted))

    async def _joined(self) -> int:
        url = f"{self._stack.addresses.monitor}/v1/pipelines/{PIPELINE}/performance"
        async with self._client.get(url) as response:
            days = (await response.json())["days"]
        return sum(int(row["rows"]) for row in days if row["arm"] == "champion")

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self._phases[name] = time.monotonic() - begin

    def _account(self, found: Audit, joined: int) -> tuple[dict[str, Any], list[str]]:
        ledger = self._replay.ledger
        problems = found.problems(ledger)
        if joined != ledger.losses.rows:
            problems.append(f"{ledger.losses.rows} answers have labels, but the monitor joined {joined}")
        measured = Measured(
            seconds=time.monotonic() - self._began,
            phases=self._phases,
            stale_steps=self._fresh.late,
            peak_memory_bytes=self._peak,
            joined=joined,
            trace=self._trace(found.trace_of),
            cpu_seconds=self._cpu_seconds(),
        )
        result = build(ledger, self._watch, found, measured)
        return result, shortcomings(result, problems, whole=self._plan.whole)

    def _cpu_seconds(self) -> dict[str, float]:
        used = {name: round(usage.cpu_seconds, 1) for name, usage in self._stack.services.items()}
        return {**used, "demo": round(time.process_time(), 1)}

    def _trace(self, trace_of: dict[str, str]) -> dict[str, Any]:
        """The newest traced prediction and all spans that its trace and links lead to."""
        spans = self._sink.spans()
        known = {span.trace_id for span in spans}
        traced = [(i, trace) for i, trace in trace_of.items() if trace in known]
        if not traced:
            return {}
        prediction, trace_id = traced[-1]
        reached = follow(spans, trace_id)
        services = sorted({span.service for span in reached})
        return {"prediction": prediction, "trace_id": trace_id, "services": services, "spans": len(reached)}

    async def _until(self, met: Any, seconds: float, otherwise: str) -> None:
        limit = time.monotonic() + seconds
        while not await met():
            if time.monotonic() > limit:
                raise TimeoutError(f"{otherwise} after {seconds:.0f} s: see {self._stack.logs_dir}")
            await asyncio.sleep(0.1)
