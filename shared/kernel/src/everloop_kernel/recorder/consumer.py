"""A FastStream subscriber without the ways in which one loses messages.

Kept from FastStream: the subscription, the loop, the graceful end. Closed, each with a test: the background
commit and the commit after an error (manual acknowledgement, explicit offsets), exceptions that escape a
handler, headers that its parser cannot decode (a raw parser), replies to wherever a sender says
(`no_reply`), several workers in one consumer, unsafe defaults. Polling errors reach the recorder and not
just a log.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaMessage

from everloop_kernel.errors import one_line
from everloop_kernel.kafka import MAX_RECORD_BYTES, set_fetch_wait
from everloop_kernel.recorder.message import Subscription
from everloop_kernel.settings import METADATA_MAX_AGE_MS, KafkaSettings

__all__ = ["Subscriber"]

OnRecords = Callable[[Sequence[Any]], Awaitable[None]]
OnRebalance = Callable[[], Awaitable[None]]

_BUSY_FETCH_MS: Final = 100
_IDLE_FETCH_MS: Final = 2000
_IDLE_AFTER_SECONDS: Final = 5.0
_POLL_MS: Final = 1000

_log = logging.getLogger(__name__)


class _Polled(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka publishes no types
    """A consumer whose poll waits for records, so that idle costs little, and reports its failures."""

    def __init__(
        self, *, on_error: Callable[[BaseException | None], None], linger_seconds: float, **options: Any
    ) -> None:
        super().__init__(**options)
        self._on_error = on_error
        self._linger_seconds = linger_seconds
        self._taken_at = 0.0
        self._busy_until = 0.0

    async def getmany(
        self, *partitions: TopicPartition, max_records: int | None = None, **_timeout: int
    ) -> Any:
        """Records as soon as there are some; FastStream's own time limit would sleep in between."""
        await asyncio.sleep(max(0.0, self._taken_at + self._linger_seconds - time.monotonic()))
        try:
            while not (
                records := await super().getmany(*partitions, timeout_ms=_POLL_MS, max_records=max_records)
            ):
                self._on_error(None)
                if time.monotonic() > self._busy_until:
                    set_fetch_wait(self, _IDLE_FETCH_MS)
        except (ConsumerStoppedError, asyncio.CancelledError):
            raise
        except BaseException as error:
            self._on_error(error)
            raise
        self._on_error(None)
        self._taken_at = time.monotonic()
        self._busy_until = self._taken_at + _IDLE_AFTER_SECONDS
        set_fetch_wait(self, _BUSY_FETCH_MS)
        return records


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells the recorder of both halves of a rebalance. It must not raise: aiokafka would swallow that."""

    def __init__(self, on_revoked: OnRebalance, on_assigned: OnRebalance) -> None:
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned

    async def on_partitions_revoked(self, _revoked: set[TopicPartition]) -> None:
        """Before another member may read them."""
        await self._on_revoked()

    async def on_partitions_assigned(self, _assigned: set[TopicPartition]) -> None:
        """Records of new partitions may have been handled before this is called (trap 16)."""
        await self._on_assigned()


async def _raw(records: Any) -> KafkaMessage:
    """The batch as it is: FastStream's own parser decodes headers, and fails on a null or non-UTF-8 one."""
    return KafkaMessage(body=b"", headers={}, raw_message=records, consumer=_Unused(), batch_headers=[])


async def _undecoded(message: Any) -> Any:
    return message.raw_message


class _Unused:
    """FastStream's acknowledgements go nowhere: offsets are committed explicitly."""

    async def commit(self) -> None:
        raise AssertionError("the recorder commits explicit offsets itself")

    def seek(self, _partition: TopicPartition, _offset: int) -> None:
        raise AssertionError("the recorder seeks itself")


class Subscriber:
    """One subscription's consumer."""

    def __init__(
        self,
        kafka: KafkaSettings,
        subscription: Subscription,
        *,
        on_records: OnRecords,
        on_revoked: OnRebalance,
        on_assigned: OnRebalance,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._kafka = kafka
        self._subscription = subscription
        self._on_records = on_records
        self._listener = _Listener(on_revoked, on_assigned)
        self._on_fatal = on_fatal
        self._failing_since: float | None = None
        self._error = ""
        self._broker: KafkaBroker | None = None
        self._subscriber: Any = None

    @property
    def consumer(self) -> Any:
        """The aiokafka consumer, while started."""
        return None if self._subscriber is None else self._subscriber.consumer

    @property
    def error(self) -> str | None:
        """What the last poll failed with, if it did."""
        return self._error if self._failing_since is not None else None

    @property
    def failing_seconds(self) -> float:
        """For how long polls have failed."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    @property
    def is_alive(self) -> bool:
        """Whether FastStream's loop runs."""
        return self._subscriber is not None and any(not task.done() for task in self._subscriber.tasks)

    @property
    def is_connected(self) -> bool:
        """Whether the group's coordinator is known; there is no public way to ask."""
        consumer = self.consumer
        return consumer is not None and consumer._coordinator.coordinator_id is not None  # noqa: SLF001

    async def start(self) -> None:
        """Join the group."""
        self._broker = broker = KafkaBroker(
            self._kafka.bootstrap_servers,
            consumer_only=True,
            allow_auto_create_topics=False,
            logger=None,
            apply_types=False,
            graceful_timeout=20.0,
        )
        self._subscriber = self._subscribe(broker)
        await broker.connect()
        # the hook of FastStream's own test broker; it spares a second mapping of the security settings
        broker.config.broker_config.builder = functools.partial(
            _build,
            {
                **self._kafka.client_options(),
                "on_error": self._note,
                "linger_seconds": self._subscription.linger_ms / 1000,
            },
        )
        await broker.start()

    def _subscribe(self, broker: KafkaBroker) -> Any:
        wanted = self._subscription
        topics, pattern = ((), wanted.expression) if wanted.pattern else (wanted.topics, None)
        subscriber = broker.subscriber(
            *topics,
            pattern=pattern,
            group_id=wanted.group,
            batch=True,
            max_records=wanted.max_records,
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=self._kafka.session_timeout_ms,
            heartbeat_interval_ms=self._kafka.session_timeout_ms // 3,
            partition_assignment_strategy=(RangePartitionAssignor,),
            max_partition_fetch_bytes=MAX_RECORD_BYTES,
            fetch_max_wait_ms=_BUSY_FETCH_MS,
            listener=self._listener,
            parser=_raw,
            decoder=_undecoded,
        )
        subscriber(self._receive)
        return subscriber

    async def _receive(self, records: Any) -> None:
        await self._on_records(records)

    def _note(self, error: BaseException | None) -> None:
        """Remember a poll's outcome. What is no Kafka error is final: FastStream would retry it for ever."""
        if error is None:
            self._failing_since = None
            return
        self._error = one_line(error)
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            _log.warning("polling for %s fails: %s", self._subscription.group, self._error)
        if not isinstance(error, KafkaError):
            self._on_fatal(error)

    async def stop(self) -> None:
        """Let the batch in flight end, then leave the group."""
        broker, self._broker, self._subscriber = self._broker, None, None
        if broker is not None:
            await broker.stop()


def _build(common: dict[str, Any], **options: Any) -> _Polled:
    return _Polled(**{**options, **common, "metadata_max_age_ms": METADATA_MAX_AGE_MS})
