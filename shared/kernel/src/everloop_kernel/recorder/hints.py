"""How far a group is, told to Kafka for lag monitors and a quick start. What counts is in Postgres."""

import asyncio
import logging
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from everloop_kernel.errors import one_line

__all__ = ["HINT_SECONDS", "Hints"]

HINT_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class Committing(Protocol):
    """What is needed of a consumer."""

    def assignment(self) -> AbstractSet[TopicPartition]:
        """The partitions that it has."""
        ...

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Tell Kafka what is read next."""
        ...


class Hints:
    """What is still to be told: in one request for all partitions, for the broker writes each to disk."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._next: dict[TopicPartition, int] = {}

    def note(self, partition: TopicPartition, following: int) -> None:
        """The next record to read is at `following`."""
        self._next[partition] = following

    def forget(self) -> None:
        """Other members may have these partitions now."""
        self._next.clear()

    async def tell(self, consumer: Committing | None) -> None:
        """Commit; a rebalance or an outage may refuse it, and it is tried again with what came meanwhile."""
        noted, self._next = self._next, {}
        if consumer is None or not noted:
            return
        assigned = consumer.assignment()
        hints = {partition: following for partition, following in noted.items() if partition in assigned}
        try:
            async with asyncio.timeout(HINT_SECONDS):
                if hints:
                    await consumer.commit(hints)
        except (KafkaError, TimeoutError) as error:
            self._next = hints | self._next
            _log.debug("%s could not commit to Kafka: %s", self._group, one_line(error))
