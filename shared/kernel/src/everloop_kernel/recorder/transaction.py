"""One Postgres transaction: a service's state and the events it decides, together or not at all."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from everloop_schemas import cloudevents
from everloop_schemas.events import Event
from opentelemetry.trace import SpanKind

from everloop_kernel import telemetry
from everloop_kernel.dead_letters import DeadLetter
from everloop_kernel.recorder import outbox
from everloop_kernel.recorder.message import Message
from everloop_kernel.recorder.outbox import Entry

__all__ = ["Transaction", "transaction"]


class Transaction:
    """What a handler or an HTTP use case may do. `connection` is asyncpg's, inside the transaction.

    Events are written when the transaction ends and published afterwards, each once, in order.
    """

    def __init__(self, service: str, connection: Any, group: str | None = None) -> None:
        self.connection = connection
        self._service = service
        self._group = group
        self._entries: list[Entry] = []
        self._dead: list[DeadLetter] = []

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        """What `reject` has set aside so far."""
        return self._dead

    def emit(
        self,
        event: Event,
        *,
        id: str,  # noqa: A002  (the attribute's name in CloudEvents)
        key: str | bytes,
        topic: str | None = None,
        partition: int | None = None,
    ) -> None:
        """Publish `event` after the commit, as a CloudEvent whose id must be derived, not random.

        `topic` is needed for data topics (`<name>.<pipeline>`); without `partition` the key's hash decides.
        """
        where = topic or event.topic
        with telemetry.span(
            f"send {where}", telemetry.messaging_attributes("send", where), kind=SpanKind.PRODUCER
        ):
            value, headers = cloudevents.encode(
                event, id=id, source=f"/everloop/{self._service}", traceparent=telemetry.traceparent()
            )
        self.emit_raw(where, key.encode() if isinstance(key, str) else key, value, headers, partition)

    def emit_raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        partition: int | None = None,
    ) -> None:
        """Publish bytes after the commit; `value` None is a tombstone."""
        self._entries.append(Entry(topic, partition, key, value, list(headers)))

    def reject(self, message: Message, code: str, reason: str) -> None:
        """Set a message aside: it goes, with its bytes and headers, to the group's dead letters."""
        if self._group is None:
            raise RuntimeError("only a message of a subscription can be rejected")
        letter = DeadLetter(message, code, reason)  # a Message has all that it reads
        found = letter.output(self._group)
        self._dead.append(letter)
        self.emit_raw(found.topic, found.key, found.value, found.headers, found.partition)

    async def flush(self) -> None:
        """Write the events; the transaction's last statement, since it takes the outbox's lock."""
        if self._entries:
            await outbox.append(self.connection, self._service, self._entries)
            self._entries = []


@asynccontextmanager
async def transaction(pool: Any, service: str) -> AsyncIterator[Transaction]:
    """A transaction for an HTTP use case or a loop: committed at the block's end, undone by an exception."""
    async with pool.acquire() as connection, connection.transaction():
        work = Transaction(service, connection)
        yield work
        await work.flush()
