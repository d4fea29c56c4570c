"""Waits until the online features hold what was published: replayed time leaves no room for lag.

In a day's own pace a label is in the features long before the next flight leaves. Here an hour passes in a
tenth of a second, so the clock stands still for as long as the platform needs; otherwise a model would be
asked with features hours older than those that it was trained on.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from everloop_kernel.kafka import admin_client, committed_offsets
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.topics import TOPICS

GROUP = "everloop-feature"
LONGEST_SECONDS = 5.0
PAUSE_SECONDS = 0.02


class _Entry(msgspec.Struct):
    kind: str


@dataclass
class Fresh:
    """Follows the log, and how far the feature service has read it."""

    bootstrap_servers: str
    pipeline: str
    late: int = 0
    """How often the platform took longer than `LONGEST_SECONDS`."""
    _labels: int = 0
    _ends: dict[TopicPartition, int] = field(default_factory=dict)
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _admin: Any = None

    async def run(self) -> None:
        """Read the log until cancelled."""
        consumer = AIOKafkaConsumer(
            TOPICS["ingest-record-accepted-v1"].topic_for(self.pipeline),
            bootstrap_servers=self.bootstrap_servers,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            enable_auto_commit=False,
        )
        self._admin = admin = admin_client(KafkaSettings(bootstrap_servers=self.bootstrap_servers))
        await consumer.start()
        await admin.start()
        try:
            while True:
                self._take(await consumer.getmany(timeout_ms=1000))
        finally:
            await consumer.stop()
            await admin.close()

    def _take(self, batches: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        for partition, records in batches.items():
            kinds = [msgspec.json.decode(record.value, type=_Entry).kind for record in records]
            self._labels += kinds.count("label")
            self._ends[partition] = records[-1].offset + 1
        self._more.set()

    async def hold(self, labels: int) -> None:
        """Return when so many labels are in the log and in the features, or after `LONGEST_SECONDS`."""
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                while self._labels < labels:
                    self._more.clear()
                    await self._more.wait()
                await self._computed()
        except TimeoutError:
            self.late += 1

    async def _computed(self) -> None:
        """Wait until the feature service has committed what the log holds now."""
        ends = dict(self._ends)
        done = False
        while not done:
            await asyncio.sleep(PAUSE_SECONDS)
            found = await committed_offsets(self._admin, GROUP, list(ends))
            done = all(found.get(partition, (0, ""))[0] >= end for partition, end in ends.items())
