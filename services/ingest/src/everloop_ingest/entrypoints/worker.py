"""The stream side: inbound partitions become log partitions."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from everloop_kernel.settings import KafkaSettings, PlatformSettings
from everloop_kernel.stream import DeadLetter, PartitionTask, RestoreFrom, Step, StreamProcessor, go_on
from everloop_schemas.events import DataProfiled

from everloop_ingest.application import names
from everloop_ingest.application.intake import Intake, NewState
from everloop_ingest.application.tallying import Tallier
from everloop_ingest.domain.contract import Contract
from everloop_ingest.metrics import RECORDS, WARNINGS

__all__ = ["IntakeTask", "UnknownPipelineTask", "worker"]

WaitFor = Callable[[str], Awaitable[Contract | None]]
Get = Callable[[str], Contract | None]
ProfileOf = Callable[[str], DataProfiled | None]

GENERATION = "1"
"""The log is never replayed from the inbound topic: its generation stays the same."""
_MAX_RECORDS = 4000


class IntakeTask:
    """The intake of one partition, as the stream processor drives it."""

    generation = GENERATION

    def __init__(self, contract: Contract, get: Get, partition: TopicPartition, profile: ProfileOf) -> None:
        self._pipeline = contract.pipeline
        self._partition = partition
        self._last_known = contract
        self._get = get
        self._profile = profile
        self._tallier = Tallier(partition.partition)
        self._intake = Intake(self._contract, partition.topic, partition.partition, lambda: datetime.now(UTC))

    def _contract(self) -> Contract:
        """The contract in force; a pipeline just removed keeps its last one until the lane is reopened."""
        self._last_known = self._get(self._pipeline) or self._last_known
        return self._last_known

    def restore_from(self) -> Sequence[RestoreFrom]:
        """The newest part of the log itself: what stands there must not be written again.

        Each transaction's marker takes an offset too, hence twice the records.
        """
        offsets = 2 * self._last_known.dedupe_records
        topic = f"{names.LOG}.{self._pipeline}"
        return [RestoreFrom(topic, self._partition.partition, last=offsets, always=True)]

    def restore(self, records: Sequence[ConsumerRecord]) -> None:
        """Take a page of the log."""
        self._intake.restore(records)

    def begin(self, beginning: int, committed: int | None) -> int:
        """Where it stopped."""
        return go_on(beginning, committed)

    def derive(self, records: Sequence[ConsumerRecord]) -> Step[NewState]:
        """See `Intake`; and what the batch tells the judge of the data gates."""
        step = self._intake.derive(records)
        position = records[-1].offset + 1
        notes = self._tallier.outputs(self._contract(), self._profile(self._pipeline), step.state, position)
        return Step([*step.outputs, *notes], step.dead, step.state)

    def apply(self, state: NewState) -> None:
        """The transaction is committed: its state is the state, and it may be counted."""
        self._intake.apply(state)
        for (outcome, detail), count in state.counts.items():
            RECORDS.labels(self._pipeline, outcome, detail).inc(count)
        for (field, rule), count in state.warnings.items():
            WARNINGS.labels(self._pipeline, field, rule).inc(count)


class UnknownPipelineTask:
    """An inbound topic whose pipeline nobody has defined: its records wait in the dead letters."""

    generation = GENERATION

    def __init__(self, pipeline: str) -> None:
        self._reason = f"no pipeline {pipeline!r} is defined; apply its file, then replay the dead letters"

    def restore_from(self) -> Sequence[RestoreFrom]:
        """No state."""
        return []

    def restore(self, records: Sequence[ConsumerRecord]) -> None:
        """No state."""

    def begin(self, beginning: int, committed: int | None) -> int:
        """Where it stopped."""
        return go_on(beginning, committed)

    def derive(self, records: Sequence[ConsumerRecord]) -> Step[None]:
        """Every record is a dead letter."""
        return Step([], [DeadLetter(each, "no-such-pipeline", self._reason) for each in records], None)

    def apply(self, state: None) -> None:
        """No state."""


def worker(
    kafka: KafkaSettings, platform: PlatformSettings, wait_for: WaitFor, get: Get, profile: ProfileOf
) -> StreamProcessor:
    """The stream processor over the inbound topics of all pipelines."""

    async def open_task(partition: TopicPartition) -> PartitionTask[Any]:
        pipeline = names.pipeline_of(partition.topic)
        contract = await wait_for(pipeline)
        if contract is None:
            return UnknownPipelineTask(pipeline)
        return IntakeTask(contract, get, partition, profile)

    return StreamProcessor(
        kafka=kafka,
        platform=platform,
        group=names.GROUP,
        pattern=names.inbound_pattern(),
        open_task=open_task,
        max_records=_MAX_RECORDS,
    )
