"""What a stream processor asks of the code that derives: pure steps over one partition."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from aiokafka import ConsumerRecord, TopicPartition

from everloop_kernel.dead_letters import DeadLetter, DeadLetterLimit
from everloop_kernel.settings import KafkaSettings
from everloop_kernel.stream_writer import Output

__all__ = ["LaneSettings", "OpenTask", "PartitionTask", "RestoreFrom", "Step"]

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class RestoreFrom:
    """A partition that holds what a task needs to go on: its state topic, or its own output.

    `last` bounds the reading to about that many offsets before the end; None reads it whole. A task that
    starts afresh (a new generation, or no committed offset) skips it, unless it is wanted `always`: what was
    published stays, and only reading it keeps a replay from publishing it twice.
    """

    topic: str
    partition: int
    last: int | None = None
    always: bool = False


@dataclass(frozen=True, slots=True)
class Step(Generic[S]):
    """What follows from one batch: what to publish, what to set aside, and the new state."""

    outputs: Sequence[Output]
    dead: Sequence[DeadLetter]
    state: S


class PartitionTask(Protocol[S]):
    """The derivation over one input partition.

    Its calls come in this order: `restore` for each page of each `restore_from`; then, for each batch,
    `derive` and, once committed, `apply`.
    """

    @property
    def generation(self) -> str:
        """Which definition this is, such as the pipeline's version; kept with the committed offset.

        When it differs from what was committed, the partition is replayed from its beginning, state fresh.
        """
        ...

    def restore_from(self) -> Sequence[RestoreFrom]:
        """Where the state lies."""
        ...

    def restore(self, records: Sequence[ConsumerRecord]) -> None:
        """Take a page of records of one `RestoreFrom`, in order."""
        ...

    def derive(self, records: Sequence[ConsumerRecord]) -> Step[S]:
        """What follows from the batch (one partition's records, in order). Must not change any state.

        May raise PermanentError: the batch is then taken apart until the record is found that causes it.
        """
        ...

    def apply(self, state: S) -> None:
        """Make the step's state the current one: its transaction is committed."""
        ...


OpenTask = Callable[[TopicPartition], Awaitable[PartitionTask[Any]]]


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """What all lanes of a processor share."""

    kafka: KafkaSettings
    group: str
    open_task: OpenTask
    limit: DeadLetterLimit
    max_records: int
    longest_rest_seconds: float
    max_backoff_seconds: float
    idle_seconds: float
