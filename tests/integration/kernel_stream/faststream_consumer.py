"""A FastStream consumer as one writes it first, or with the fixes; test_faststream_traps.py runs it.

It appends each value it handles to a file, with partition and offset, one line a record. With the fixes it
behaves as the recorder does: manual acknowledgement, a raw parser, no replies, an end at the first error, and
positions that are read from where the values went.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage as InjectedMessage
from faststream.kafka.message import KafkaMessage

IDLE_SECONDS = 1.5


class Sink:
    """The file: what a database would be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done = {line.rsplit(" ", 1)[1] for line in self._lines()}

    def _lines(self) -> list[str]:
        return self._path.read_text().splitlines() if self._path.exists() else []

    def values(self) -> list[str]:
        return [line.rsplit(" ", 1)[0] for line in self._lines()]

    def write(self, value: str, position: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{value} {position}\n")
        self.done.add(position)


async def _raw(record: Any) -> KafkaMessage:
    return KafkaMessage(body=record.value, headers={}, raw_message=record, consumer=_Nothing())


async def _undecoded(message: Any) -> bytes:
    return message.body


class _Nothing:
    async def commit(self, *_arguments: Any) -> None:
        return


FIXED: dict[str, Any] = {
    "ack_policy": AckPolicy.MANUAL,
    "no_reply": True,
    "parser": _raw,
    "decoder": _undecoded,
    "max_poll_records": 1,
}


class Consumer:
    """One member; `fails_on` names a value whose first handling fails."""

    def __init__(self, bootstrap: str, topic: str, sink: Sink, *, fixed: bool, **options: Any) -> None:
        self._broker = KafkaBroker(bootstrap, logger=None)
        self._topic = topic
        self._sink = sink
        self._fixed = fixed
        self.fails_on: str | None = None
        self.seconds_a_record = 0.0
        self.answer: bytes | None = None
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._busy = asyncio.Event()
        chosen = FIXED if fixed else {"ack_policy": AckPolicy.MANUAL, **options}
        self._subscriber = self._broker.subscriber(
            topic, group_id=topic, auto_offset_reset="earliest", **chosen
        )
        self._subscriber(self._handle)

    async def _handle(self, body: bytes, message: InjectedMessage) -> Any:
        record = message.raw_message
        position = f"{record.partition}:{record.offset}"
        if self._fixed and (self._failed.done() or position in self._sink.done):
            return None
        self._busy.set()
        value = bytes(body).decode() if isinstance(body, bytes) else str(body)
        try:
            await self._work(value, position)
        except RuntimeError as error:
            if not self._fixed:
                raise
            self._failed.set_exception(error)  # ends the member: nothing after this record is handled
            return None
        await self._commit(record, message)
        return self.answer

    async def _work(self, value: str, position: str) -> None:
        await asyncio.sleep(self.seconds_a_record)
        if value == self.fails_on:
            self.fails_on = None
            raise RuntimeError("a transient failure")
        self._sink.write(value, position)

    async def _commit(self, record: Any, message: KafkaMessage) -> None:
        if self._fixed:
            partition = TopicPartition(record.topic, record.partition)
            await self._subscriber.consumer.commit({partition: record.offset + 1})
        else:
            await message.ack()

    async def run(self) -> None:
        """Handle what there is, until nothing more comes; raises what ended the member."""
        await self._broker.start()
        try:
            while await self._more():
                pass
        finally:
            await self._broker.stop()
        if self._failed.done():
            self._failed.result()

    async def _more(self) -> bool:
        self._busy.clear()
        try:
            async with asyncio.timeout(IDLE_SECONDS if self._sink.done else 10):
                await self._busy.wait()
        except TimeoutError:
            return False
        return not self._failed.done()


async def main(bootstrap: str, topic: str, path: str, kind: str) -> None:
    """Slowly, so that it can be killed in the middle."""
    options: dict[str, Any] = {
        "ack_policy": AckPolicy.ACK_FIRST,
        "auto_commit_interval_ms": 50,
        "max_workers": 10,
    }
    consumer = Consumer(bootstrap, topic, Sink(Path(path)), fixed=kind == "fixed", **options)
    consumer.seconds_a_record = 0.02 if kind == "fixed" else 0.2
    await consumer.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    os._exit(0)
