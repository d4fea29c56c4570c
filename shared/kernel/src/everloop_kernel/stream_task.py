"""What a stream processor asks of the code that derives: pure steps over one partition."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from aiokafka import ConsumerRecord, TopicPartition

from everloop_kernel.dead_letters import DeadLetter, DeadLetterLimit
from everloop_kernel.settings import KafkaSettings
from everloop_kernel.stream_throttle import Throttle
from everloop_kernel.stream_writer import Output

__all__ = ["LaneSettings", "OpenTask", "PartitionTask", "ReplayingTask", "RestoreFrom", "Step", "go_on"]

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
    """What follows from one batch: what to publish, what to set aside, and the new state.

    `generation` is what the task's will be with this step; None where the step leaves it as it is.
    """

    outputs: Sequence[Output]
    dead: Sequence[DeadLetter]
    state: S
    generation: str | None = None


def go_on(beginning: int, committed: int | None) -> int:
    """Where a task begins whose state can be read, or that has none."""
    return beginning if committed is None else committed


class PartitionTask(Protocol[S]):
    """The derivation over one input partition.

    Its calls come in this order: `restore` for each page of each `restore_from`; `begin`; then, for each
    batch, `derive` and, once committed, `apply`.
    """

    @property
    def generation(self) -> str:
        """Which definition this is, such as the pipeline's version; kept with the committed offset.

        When it differs from what was committed, the partition is replayed from its beginning, state fresh;
        a `ReplayingTask` is replayed beside its live records instead.
        """
        ...

    def restore_from(self) -> Sequence[RestoreFrom]:
        """Where the state lies."""
        ...

    def restore(self, records: Sequence[ConsumerRecord]) -> None:
        """Take a page of records of one `RestoreFrom`, in order."""
        ...

    def begin(self, beginning: int, committed: int | None) -> int:
        """The offset at which handling goes on, now that all is restored.

        `committed` is where it stopped (None: of another generation, or nowhere), `beginning` the partition's
        first offset: the answer of a task whose state is of no use and is derived anew. Raises
        ConfigurationError where that cannot give the right state either; the process ends then.
        """
        ...

    def derive(self, records: Sequence[ConsumerRecord]) -> Step[S]:
        """What follows from the batch (one partition's records, in order). Must not change any state.

        May raise PermanentError: the batch is then taken apart until the record is found that causes it.
        """
        ...

    def apply(self, state: S) -> None:
        """Make the step's state the current one: its transaction is committed."""
        ...


@runtime_checkable
class ReplayingTask(PartitionTask[S], Protocol[S]):
    """A task that is brought up to a new generation beside its live records.

    The group's position stays where live records are, and live records go on being derived as the committed
    generation says. The partition's past comes in slices, each in a transaction of the partition's producer
    that leaves the position as it is; what it has reached is part of the state and of the generation, so a
    restart goes on there. The last slice ends at the live position, and switches in its own transaction.

    Calls: `resume`, the restoring and `begin`, or `adopt`; then `catch_up_from`, which may come again; then
    `derive` and `derive_past` in turns, each with its `apply`.
    """

    def resume(self, generation: str | None) -> None:
        """Take note of what was committed last with the offset; None where nothing was."""
        ...

    def adopt(self, running: PartitionTask[Any]) -> bool:
        """Take over from the partition's task so far, which is not used any more; False when it cannot."""
        ...

    def catch_up_from(self, position: int) -> int | None:
        """Where the past is to be read from, with live records from `position` on; None when nothing is left.

        `position` itself says that there is nothing to read, but still something to write.
        """
        ...

    def derive_past(self, records: Sequence[ConsumerRecord], reached: int | None) -> Step[S]:
        """What follows from records below the live position; like `derive`, it must not change any state.

        `reached` is the live position in the slice that ends there, which may hold no record.
        """
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
    throttle: Throttle
