"""The recorder: a process component that consumes and records."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from tenacity import RetryCallState

from everloop_kernel.errors import EverloopError, one_line
from everloop_kernel.kafka import retrying
from everloop_kernel.metrics import CONSUMER_LAG, REBALANCES
from everloop_kernel.recorder.consumer import Subscriber
from everloop_kernel.recorder.failures import TRANSIENT
from everloop_kernel.recorder.hints import HINT_SECONDS, Hints
from everloop_kernel.recorder.message import Message, Subscription
from everloop_kernel.recorder.partitions import Partitions
from everloop_kernel.settings import KafkaSettings, PlatformSettings

__all__ = ["Recorder"]

_WATCH_SECONDS: Final = 5.0
_REVOKE_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


class Recorder:
    """Consumes each subscription and records its batches; ends with an error rather than skip anything."""

    name = "recorder"

    def __init__(
        self,
        service: str,
        kafka: KafkaSettings,
        pool: Any,
        platform: PlatformSettings,
        subscriptions: Sequence[Subscription],
    ) -> None:
        self._pool = pool
        self._backoff_seconds = platform.max_backoff_seconds
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._database_error: str | None = None
        self._members = [
            _Member(
                kafka,
                subscription,
                Partitions(service, subscription.group, subscription.handler, pool, platform),
                self._fail,
            )
            for subscription in subscriptions
        ]

    async def run(self) -> None:
        """Consume until stopped; raises what made it impossible to go on."""
        try:
            for member in self._members:
                async for attempt in retrying(self._backoff_seconds, before_sleep=member.log_retry):
                    with attempt:
                        await member.start()
            await self._watch()
        finally:
            await asyncio.gather(*(member.stop() for member in self._members))
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End after the batches in flight."""
        self._stop.set()

    def not_ready(self) -> str | None:
        """Why this process cannot record: no assignment yet, no broker, no database."""
        if self._failure is not None:
            return one_line(self._failure)
        reasons = [reason for member in self._members if (reason := member.not_ready())]
        return reasons[0] if reasons else self._database_error

    def _fail(self, error: BaseException) -> None:
        """The first failure counts; whatever arrives after it is left unhandled, for the next start."""
        if self._failure is None:
            self._failure = error
        for member in self._members:
            member.halted = True
        self._stop.set()

    async def _watch(self) -> None:
        """Until the end: look after the database and the polls, and report the lag."""
        while not self._stop.is_set():
            await self._check_database()
            for member in self._members:
                await member.report_lag()
                if not member.consuming and not self._stop.is_set():
                    self._fail(EverloopError(f"{member.group} has stopped consuming"))
                if member.failing_seconds > self._backoff_seconds:
                    self._fail(EverloopError(f"Kafka has not answered {member.group}: {member.not_ready()}"))
            try:
                async with asyncio.timeout(_WATCH_SECONDS):
                    await self._stop.wait()
            except TimeoutError:
                continue

    async def _check_database(self) -> None:
        try:
            async with asyncio.timeout(_WATCH_SECONDS), self._pool.acquire() as connection:
                await connection.execute("SELECT 1")
            self._database_error = None
        except TRANSIENT as error:
            self._database_error = f"PostgreSQL does not answer: {one_line(error)}"


class _Member:
    """This process as a member of one consumer group."""

    def __init__(
        self,
        kafka: KafkaSettings,
        subscription: Subscription,
        partitions: Partitions,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.group = subscription.group
        self.halted = False
        self._kafka = kafka
        self._subscription = subscription
        self._fail = fail
        self._partitions = partitions
        self._subscriber: Subscriber | None = None
        self._busy = asyncio.Lock()
        self._assigned = False
        self._hints = Hints(self.group)
        self._hinting: asyncio.Task[None] | None = None

    @property
    def failing_seconds(self) -> float:
        """For how long this member's polls have failed."""
        return self._subscriber.failing_seconds if self._subscriber else 0.0

    @property
    def consuming(self) -> bool:
        """Whether the loop that polls is alive."""
        return self._subscriber is not None and self._subscriber.is_alive

    async def start(self) -> None:
        """Join the group; a failed start leaves nothing behind."""
        subscriber = Subscriber(
            self._kafka,
            self._subscription,
            on_records=self._receive,
            on_revoked=self._revoked,
            on_assigned=self._received_assignment,
            on_fatal=self._fail,
        )
        try:
            await subscriber.start()
        except BaseException:
            await subscriber.stop()
            raise
        self._subscriber = subscriber
        self._hinting = asyncio.create_task(self._keep_hinting())

    async def stop(self) -> None:
        """Leave the group; whether that works no longer matters to what is recorded."""
        self.halted = True
        if self._hinting is not None:
            self._hinting.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REVOKE_SECONDS), self._busy:
                await self._tell_kafka()
        subscriber, self._subscriber = self._subscriber, None
        if subscriber is None:
            return
        try:
            await subscriber.stop()
        except (KafkaError, OSError, TimeoutError) as error:
            _log.warning("%s did not leave its group cleanly: %s", self.group, one_line(error))

    def log_retry(self, state: RetryCallState) -> None:
        """Say why the start is tried again."""
        error = state.outcome.exception() if state.outcome else None
        _log.warning("%s cannot join its group yet: %s", self.group, one_line(error or TimeoutError()))

    def not_ready(self) -> str | None:
        """Why nothing is consumed at present."""
        if self._subscriber is None:
            return f"{self.group} is not connected to Kafka"
        if self._subscriber.error is not None:
            return f"{self.group} cannot read from Kafka: {self._subscriber.error}"
        if not self._subscriber.is_connected:
            return f"{self.group} has lost its Kafka coordinator"
        return None if self._assigned else f"{self.group} waits for its assignment"

    async def report_lag(self) -> None:
        """Lag by what the last fetches said of each partition's end."""
        consumer = self._subscriber.consumer if self._subscriber else None
        if consumer is None:
            return
        for partition in consumer.assignment():
            end, position = consumer.last_stable_offset(partition), await _position(consumer, partition)
            if end is not None and position is not None:
                CONSUMER_LAG.labels(self.group, partition.topic, str(partition.partition)).set(
                    max(0, end - position)
                )

    async def _revoked(self) -> None:
        """Let the batch in flight end, so that the next owner need not fence it, but not for ever."""
        try:
            async with asyncio.timeout(_REVOKE_SECONDS), self._busy:
                await self._tell_kafka()
        except TimeoutError:
            _log.warning("%s gives its partitions up while a batch is still being recorded", self.group)
        self._forget()

    async def _received_assignment(self) -> None:
        self._forget()
        self._assigned = True
        REBALANCES.labels(self.group).inc()

    def _forget(self) -> None:
        self._partitions.forget()
        self._hints.forget()
        CONSUMER_LAG.remove_by_labels({"group": self.group})

    async def _receive(self, records: Sequence[Any]) -> None:
        """Record a poll's batches. No exception may leave: FastStream would go on to the next batch."""
        async with self._busy:
            try:
                for partition, batch in groupby(
                    records, lambda record: TopicPartition(record.topic, record.partition)
                ):
                    if self.halted:
                        return
                    await self._record(partition, [Message.of(record) for record in batch])
            except Exception as error:  # noqa: BLE001  (the process ends with it)
                self._fail(error)

    async def _record(self, partition: TopicPartition, messages: Sequence[Message]) -> None:
        subscriber = self._subscriber
        consumer = subscriber.consumer if subscriber else None
        if consumer is None or partition not in consumer.assignment():
            return  # stopping, or another member's now: what is not recorded comes again
        following = await self._partitions.apply(partition, messages, consumer.seek)
        if following is not None:
            self._hints.note(partition, following)

    async def _keep_hinting(self) -> None:
        while True:
            await asyncio.sleep(HINT_SECONDS)
            await self._tell_kafka()

    async def _tell_kafka(self) -> None:
        await self._hints.tell(self._subscriber.consumer if self._subscriber else None)


async def _position(consumer: Any, partition: TopicPartition) -> int | None:
    """What is read next; None while that is not known, as just after a rebalance."""
    try:
        async with asyncio.timeout(1):
            position: int = await consumer.position(partition)
    except (KafkaError, TimeoutError):
        return None
    return position
