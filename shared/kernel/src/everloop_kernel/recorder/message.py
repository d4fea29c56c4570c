"""What a recorder is given to do: subscriptions, their handlers, and the messages these receive."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop_kernel.recorder.transaction import Transaction

__all__ = ["Handler", "Message", "Subscription"]


@dataclass(frozen=True, slots=True)
class Message:
    """One record as it came, undecoded: any bytes reach the handler, none can bypass it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp_ms: int

    @classmethod
    def of(cls, record: Any) -> "Message":
        """From an aiokafka ConsumerRecord."""
        return cls(
            record.topic,
            record.partition,
            record.offset,
            record.key,
            record.value,
            record.headers,
            record.timestamp,
        )


Handler = Callable[[Sequence[Message], "Transaction"], Awaitable[None]]
"""Takes messages of one partition in offset order, and the transaction for all that it does.

It may be called again with the same messages after a transaction that failed: nothing outside of the
transaction may remember the first call. `PermanentError` sets the message aside (of several, they are then
tried one by one).
"""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one consumer group reads, and what is done with it. `topics` and `pattern` may be combined.

    `pattern` is a regular expression for whole topic names; a new topic that matches is found within seconds.
    Under steady traffic, records are collected for `linger_ms` after a batch: fewer, larger transactions.
    After a pause, the first record does not wait.
    """

    group: str
    topics: Sequence[str] = ()
    pattern: str | None = None
    handler: Handler = field(kw_only=True)
    max_records: int = 2000
    linger_ms: int = 0

    def __post_init__(self) -> None:
        """Refuse a subscription to nothing."""
        if not self.topics and self.pattern is None:
            raise ValueError(f"the subscription of {self.group} names neither topics nor a pattern")

    @property
    def expression(self) -> str:
        """One regular expression for all of its topics."""
        names = [f"^{re.escape(topic)}$" for topic in self.topics]
        return "|".join([*names, self.pattern] if self.pattern else names)
