"""Drives 2013 past Everloop: predictions asked, records published, in the order things were known."""

import asyncio
import bisect
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import aiohttp
import msgspec
from flights_data import EVENT_TIME, FIELDS, SOURCE, Flights
from fresh import Fresh
from ledger import Answer, Ledger

PIPELINE = "flight-delay"
LATE_AFTER_MINUTES = 15
TICK = 180 * 60 * 1_000_000
"""Microseconds of pipeline time in one step: requests inside a step share it."""
DAY = 24 * 3600 * 1_000_000
REPEAT_EVERY = 50
"""Every so many steps the same requests are sent again, as a producer does that missed an answer."""
TEXT_FIELDS = {"origin", "carrier", "dest", EVENT_TIME, "id"}

Record = dict[str, object]
Timed = Sequence[tuple[int, Record]]


@dataclass(frozen=True)
class Step:
    """What happens in one step of pipeline time."""

    at: int
    flights: list[Record]
    labels: list[Record]


def steps(flights: Flights) -> Iterator[Step]:
    """Cut both streams into steps.

    A step holds the flights that leave in it and the labels that became known in the step before, which are
    published first: a flight may see every label of its past, and none of its future.
    """
    first, last = flights.observations[0][0], flights.labels[-1][0]
    for at in range(first - first % TICK, last + 2 * TICK, TICK):
        yield Step(at, _between(flights.observations, at), _between(flights.labels, at - TICK))


def _between(timed: Timed, at: int) -> list[Record]:
    low = bisect.bisect_left(timed, at, key=lambda item: item[0])
    high = bisect.bisect_left(timed, at + TICK, key=lambda item: item[0])
    return [record for _, record in timed[low:high]]


class Replay:
    """One client of the running stack; `ledger` holds what it saw."""

    def __init__(self, client: aiohttp.ClientSession, fresh: Fresh, *, ingest: str, serving: str) -> None:
        self.ledger = Ledger()
        self._fresh = fresh
        self.at = 0
        self.served = False
        self.frozen_version: int | None = None
        self._client = client
        self._ingest = f"{ingest}/v1/pipelines/{PIPELINE}"
        self._models = f"{serving}/v2/models/{PIPELINE}"

    async def run(self, flights: Flights, pace: "Pace", between: Callable[[int], Awaitable[None]]) -> None:
        """Play every step; `between` is called with the day's number when a day of pipeline time begins."""
        day, first = -1, flights.observations[0][0]
        for number, step in enumerate(steps(flights)):
            self.at = step.at
            if (step.at - first) // DAY > day:
                day = (step.at - first) // DAY
                await between(day)
            await self._play(step, repeat=number % REPEAT_EVERY == REPEAT_EVERY - 1)
            await pace.wait(step.at, served=self.served)

    async def _play(self, step: Step, *, repeat: bool) -> None:
        """What was known before, then the questions, then what they were about."""
        for _ in range(1 + repeat):
            await self._publish("labels", step.labels)
        outcomes = ((str(r["id"]), float(str(r["arrival_delay"])) > LATE_AFTER_MINUTES) for r in step.labels)
        self.ledger.learned(outcomes)
        if self.served and step.flights:
            await self._fresh.hold(len(self.ledger.labels))
            await self._predict(step.flights)
        for _ in range(1 + repeat):
            await self._publish("observations", step.flights)
        self.ledger.observed(str(record["id"]) for record in step.flights)
        self.ledger.repeated += repeat * (len(step.flights) + len(step.labels))

    async def _predict(self, flights: list[Record]) -> None:
        request = msgspec.json.encode({"inputs": _tensors(flights)})
        frozen = f"/versions/{self.frozen_version}" if self.frozen_version else None
        asked = [self._infer("", request)] + ([self._infer(frozen, request)] if frozen else [])
        champion, *first = await asyncio.gather(*asked)
        if champion is None:
            return
        version, outputs = champion
        frozen_outputs = first[0][1] if first and first[0] else [None] * len(outputs)
        prior = self.ledger.prior
        for record, output, other in zip(flights, outputs, frozen_outputs, strict=True):
            self.ledger.answers[str(record["id"])] = Answer(output, version, other, prior)

    async def _infer(self, version: str, request: bytes) -> tuple[int, list[float]] | None:
        body = await self._post(f"{self._models}{version}/infer", request, "application/json")
        if body is None:
            return None
        answer = msgspec.json.decode(body)
        return int(answer["model_version"]), list(answer["outputs"][0]["data"])

    async def _publish(self, kind: str, records: list[Record]) -> None:
        if records:
            lines = b"\n".join(msgspec.json.encode(record) for record in records)
            await self._post(f"{self._ingest}/{kind}", lines, "application/x-ndjson")

    async def _post(self, url: str, body: bytes, content_type: str) -> bytes | None:
        """The answer's body; a failure is kept in the ledger, for the demo must not have any."""
        self.ledger.requests += 1
        headers = {"content-type": content_type, "ce-source": SOURCE}
        try:
            async with self._client.post(url, data=body, headers=headers) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.ledger.failures.append(f"{url}: {error!r}")
            return None
        if response.ok:
            return content
        self.ledger.failures.append(f"{url}: {response.status} {content[:300]!r}")
        return None


def _tensors(flights: list[Record]) -> list[dict[str, object]]:
    shape = [len(flights)]
    return [
        {
            "name": name,
            "datatype": "BYTES" if name in TEXT_FIELDS else "FP64",
            "shape": shape,
            "data": [record[name] for record in flights],
        }
        for name in ("id", EVENT_TIME, *FIELDS)
    ]


class Pace:
    """Spreads the days that have a model over `seconds`; the days before run as fast as they are taken."""

    def __init__(self, *, until: int, seconds: float) -> None:
        self._until = until
        self._seconds = seconds
        self._began: tuple[int, float] | None = None

    async def wait(self, at: int, *, served: bool) -> None:
        """Sleep until the wall clock has caught up with pipeline time."""
        if not served:
            return
        if self._began is None:
            self._began = (at, time.monotonic())
        since, clock = self._began
        share = (at - since) / max(self._until - since, 1)
        await asyncio.sleep(max(0.0, clock + share * self._seconds - time.monotonic()))
