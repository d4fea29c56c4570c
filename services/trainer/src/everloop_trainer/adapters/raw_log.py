"""A pipeline's log, read from Kafka from its beginning to a cut."""

from pathlib import Path

from aiokafka import TopicPartition
from everloop_kernel.kafka_reading import read_to_end
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.events import Cut, RecordAccepted
from everloop_schemas.topics import TOPICS

from everloop_trainer.adapters.log_format import append
from everloop_trainer.domain.job import LogFile

__all__ = ["KafkaLogs"]


class KafkaLogs:
    """`application.verify.RawLogs`; files are written below the trainer's root."""

    def __init__(self, kafka: KafkaSettings, root: Path) -> None:
        self._kafka = kafka
        self._root = root

    async def copy(self, pipeline: str, cut: Cut, name: str) -> list[LogFile]:
        """One file a partition that the cut names."""
        topic = TOPICS[RecordAccepted.topic].topic_for(pipeline)
        directory = self._root / "jobs" / name
        directory.mkdir(parents=True, exist_ok=True)
        return [
            await self._copy(TopicPartition(topic, partition), below, directory)
            for partition, below in sorted(cut.items())
            if below > 0
        ]

    async def _copy(self, partition: TopicPartition, below: int, directory: Path) -> LogFile:
        path = directory / f"{partition.partition}.log"
        with path.open("wb") as file:
            async for records in read_to_end(self._kafka, partition):
                for record in records:
                    if record.value is not None and record.offset < below:
                        append(file, record.offset, record.value)
                if records[-1].offset >= below - 1:
                    break
        return LogFile(partition=partition.partition, file=str(path.relative_to(self._root)))
