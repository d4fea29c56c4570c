"""Publishes events in Kafka transactions that also commit how far they reach."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from everloop_kernel.admin import ensure_topics
from everloop_kernel.errors import EverloopError, one_line
from everloop_kernel.kafka import admin_client, close_quietly, committed_offsets
from everloop_kernel.settings import KafkaSettings
from everloop_kernel.stream_writer import PartitionWriter
from everloop_schemas.topics import TOPICS, platform_topics

from everloop_serving.application.prediction_log import Numbered, Position, Unreachable

__all__ = ["KafkaPublisher"]

_CONNECT_SECONDS = 10.0
_PUBLISH_SECONDS = 30.0
_LOADED = TOPICS["serving-model-loaded-v1"]
_PREDICTED = TOPICS["serving-prediction-made-v1"]
_MARK = TopicPartition(_LOADED.topic_for(None), 0)
"""The group's position is filed under a partition that always exists; it is no position in that topic."""


class KafkaPublisher:
    """One transactional producer, named after this instance."""

    def __init__(self, kafka: KafkaSettings, instance: str) -> None:
        self._kafka = kafka
        self._group = f"everloop-serving-{instance}"
        self._writer = PartitionWriter(kafka, self._group, _MARK)
        self._expected = {_MARK.topic: platform_topics()[_MARK.topic]}
        self._checked: set[str] = set()

    def expect(self, pipeline: str, partitions: int) -> None:
        """Say that the pipeline's predictions will come: its topic is made where nobody has yet."""
        self._expected[_PREDICTED.topic_for(pipeline)] = (partitions, _PREDICTED.config)

    async def connect(self) -> Position | None:
        """End an earlier transaction of this instance and read the position it committed."""
        await self.close()
        with _unreachable():
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._ensure_topics()
                await self._writer.open()
                return await self._position()

    async def publish(self, events: Sequence[Numbered]) -> None:
        """One transaction: the events, each on its partition in order, and their last position."""
        last = events[-1].position
        with _unreachable():
            async with asyncio.timeout(_PUBLISH_SECONDS):
                if not self._expected.keys() <= self._checked:
                    await self._ensure_topics()
                await self._writer.commit([each.event for each in events], last.number, last.life)

    async def close(self) -> None:
        """Let go of the producer."""
        await self._writer.close()

    async def _ensure_topics(self) -> None:
        expected = dict(self._expected)
        await ensure_topics(self._kafka, expected)
        self._checked.update(expected)

    async def _position(self) -> Position | None:
        admin = admin_client(self._kafka)
        try:
            await admin.start()
            found = (await committed_offsets(admin, self._group, [_MARK])).get(_MARK)
        finally:
            await close_quietly(admin, seconds=1.0)
        return None if found is None else Position(found[1], found[0])


@contextmanager
def _unreachable() -> Iterator[None]:
    """Whatever Kafka or the way to it has against us, trying again later is the answer."""
    try:
        yield
    except (KafkaError, EverloopError, OSError, TimeoutError) as error:
        raise Unreachable(one_line(error)) from error
