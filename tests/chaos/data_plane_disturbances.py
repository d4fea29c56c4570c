"""A seeded order of crashes, zombies and rebalances, and records that flow all the while."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from chaos.data_plane_records import NAME, SOURCE, Sent
from chaos.data_plane_stack import MEMBERS, SERVICES, DataPlane
from everloop_kernel.kafka import close_quietly, plain_producer
from everloop_kernel.settings import KafkaSettings

__all__ = ["ROUNDS", "Disturbances", "publish"]

ROUNDS = 2
PACE_SECONDS = 60.0
"""How long a partition's records take while the disturbances last; after that they come at once."""
CALM_CHUNK, CHUNK = 200, 5
"""Records that are sent together: many at once when nothing disturbs."""


class Disturbances:
    """Everything that goes wrong, one thing after another; a seed decides the order and the victims."""

    def __init__(self, plane: DataPlane, chance: random.Random) -> None:
        self._plane = plane
        self._chance = chance
        steps = [self._kill_one, self._kill_both, self._freeze, self._restart_broker]
        self._steps: list[Callable[[], Awaitable[None]]] = []
        for _ in range(ROUNDS):
            chance.shuffle(steps)
            self._steps += [steps[0], self._grow, *steps[1:3], self._shrink, *steps[3:]]
        self._ended = 0
        self.done: Counter[str] = Counter()

    async def let_pass(self, share: float, rest_seconds: float) -> None:
        """Called after a share of the records: rest, and leave some for every step still to come."""
        steps = len(self._steps) + 1
        while self._ended < len(self._steps) and (rest_seconds > 0 or share > (self._ended + 1) / steps):
            await asyncio.sleep(max(rest_seconds, 0.05))
            rest_seconds = 0

    async def run(self) -> None:
        """One step after the other, with a pause in which the members begin to work again."""
        for step in self._steps:
            await asyncio.sleep(self._chance.uniform(1.0, 2.0))
            await step()
            self.done[step.__name__.strip("_")] += 1
            self._ended += 1

    async def _kill_one(self) -> None:
        for service in SERVICES:
            self._plane.kill(self._one_of(service))
            await asyncio.sleep(self._chance.uniform(0.5, 1.5))

    async def _kill_both(self) -> None:
        for service in SERVICES:
            self._plane.kill(self._one_of(service))

    async def _freeze(self) -> None:
        await self._plane.until_shared()
        await self._plane.freeze(*map(self._one_of, SERVICES))

    async def _restart_broker(self) -> None:
        await self._plane.restart_broker()

    async def _grow(self) -> None:
        for service in SERVICES:
            self._plane.join(f"{service}-3")

    async def _shrink(self) -> None:
        await asyncio.gather(*(self._plane.leave(f"{service}-3") for service in SERVICES))

    def _one_of(self, service: str) -> str:
        return f"{service}-{self._chance.choice(MEMBERS)}"


async def publish(
    plane: DataPlane, lanes: list[list[Sent]], disturbances: Disturbances | None = None
) -> None:
    """Send each partition's records in their order, each chunk after the one before is acknowledged."""
    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(_publish_lane(plane, lane, disturbances))


async def _publish_lane(plane: DataPlane, lane: list[Sent], disturbances: Disturbances | None) -> None:
    patient, sent = _Patient(plane.settings), 0
    try:
        for chunk in _chunks(lane, CHUNK if disturbances else CALM_CHUNK):
            await patient.send(chunk)
            sent += len(chunk)
            if disturbances:
                await disturbances.let_pass(sent / len(lane), PACE_SECONDS * len(chunk) / len(lane))
    finally:
        await patient.close()


def _chunks(lane: list[Sent], most: int) -> Iterator[list[Sent]]:
    chunk: list[Sent] = []
    for each in lane:
        if chunk and (each.alone or chunk[-1].alone or len(chunk) == most):
            yield chunk
            chunk = []
        chunk.append(each)
    if chunk:
        yield chunk


class _Patient:
    """A producer that sends again what was not acknowledged, with a new client: at worst there are copies."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._producer: AIOKafkaProducer | None = None

    async def send(self, chunk: Sequence[Sent]) -> None:
        """Return after the acknowledgement of all."""
        while True:
            try:
                await self._try(chunk)
            except (KafkaError, OSError):
                await self.close()
                await asyncio.sleep(0.3)
            else:
                return

    async def _try(self, chunk: Sequence[Sent]) -> None:
        if self._producer is None:
            self._producer = plain_producer(self._kafka)
            await self._producer.start()
        topic = f"producer-record-published-v1.{NAME}"
        told = [
            await self._producer.send(topic, each.value, b"k", each.partition, headers=_headers(each))
            for each in chunk
        ]
        await asyncio.gather(*told)

    async def close(self) -> None:
        """Give the client up."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_quietly(producer)


def _headers(sent: Sent) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", SOURCE.encode()),
        ("ce_type", sent.type.encode()),
    ]
