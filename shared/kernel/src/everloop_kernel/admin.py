"""Topics and groups of the cluster: create what is missing, report what differs, measure lag."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import LeaderNotAvailableError, TopicAlreadyExistsError, for_code

from everloop_kernel.errors import EverloopError
from everloop_kernel.kafka import admin_client, close_quietly, reading_consumer, retrying
from everloop_kernel.kafka_reading import partitions_of
from everloop_kernel.settings import KafkaSettings

__all__ = ["Drift", "ensure_topics", "lag", "missing_topics", "topic_drift"]

TopicSpecs = Mapping[str, tuple[int, Mapping[str, str]]]
"""By topic name: how many partitions, and its settings."""

_READY_SECONDS = 10.0
_REPLICATION_DEFAULT = -1
_RETRIED_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Drift:
    """One setting of a topic that is not what its file says; `actual` None: the topic does not exist."""

    topic: str
    setting: str
    wanted: str
    actual: str | None


async def ensure_topics(kafka: KafkaSettings, specs: TopicSpecs) -> list[str]:
    """Create the topics that do not exist and wait until they can be written; returns the new ones' names.

    An existing topic is left as it is, whatever its settings: `topic_drift` reports those.
    """
    async with _admin(kafka) as admin:
        created: list[str] = await retrying(_RETRIED_SECONDS)(_create, admin, specs)
        if created:
            await _wait_for_leaders(kafka, created)
        return created


async def _create(admin: AIOKafkaAdminClient, specs: TopicSpecs) -> list[str]:
    missing = sorted(specs.keys() - set(await admin.list_topics()))
    if not missing:
        return []
    topics = [
        # aiokafka takes the broker's default replication only along with an (empty) assignment
        NewTopic(name, specs[name][0], _REPLICATION_DEFAULT, {}, dict(specs[name][1]))
        for name in missing
    ]
    response = await admin.create_topics(topics)
    for name, code, *detail in response.topic_errors:
        error = for_code(code)
        if not code or error is TopicAlreadyExistsError:
            continue
        if error.retriable:
            raise error(name)
        reason = detail[0] if detail and detail[0] else error.__name__
        raise EverloopError(f"Kafka refuses to create the topic {name}: {reason}")
    return missing


async def _wait_for_leaders(kafka: KafkaSettings, topics: Sequence[str]) -> None:
    """A topic that was just created has no leader for some milliseconds."""
    async with _reader(kafka) as consumer, asyncio.timeout(_READY_SECONDS):
        for topic in topics:
            await retrying(_READY_SECONDS)(_check_leaders, consumer, topic)


async def _check_leaders(consumer: AIOKafkaConsumer, topic: str) -> None:
    partitions = await partitions_of(consumer, topic)
    leaders = [consumer._client.cluster.leader_for_partition(each) for each in partitions]  # noqa: SLF001
    if not leaders or any(leader is None or leader < 0 for leader in leaders):
        raise LeaderNotAvailableError(topic)


async def missing_topics(kafka: KafkaSettings, names: Sequence[str]) -> list[str]:
    """Which of the named topics do not exist."""
    async with _admin(kafka) as admin:
        existing = set(await admin.list_topics())
    return [name for name in names if name not in existing]


async def topic_drift(kafka: KafkaSettings, specs: TopicSpecs) -> list[Drift]:
    """Every difference between the topics and `specs`: missing ones, partition counts, settings."""
    async with _admin(kafka) as admin:
        existing = set(await admin.list_topics())
        known = [name for name in specs if name in existing]
        drifts = [Drift(name, "exists", "yes", None) for name in specs if name not in existing]
        for described in await admin.describe_topics(known) if known else []:
            drifts += _partition_drift(described, specs)
        for name, actual in (await _settings_of(admin, known)).items():
            drifts += [
                Drift(name, setting, wanted, actual.get(setting, "unknown"))
                for setting, wanted in specs[name][1].items()
                if actual.get(setting) != wanted
            ]
    return drifts


def _partition_drift(described: Mapping[str, Any], specs: TopicSpecs) -> list[Drift]:
    name, actual = described["topic"], len(described["partitions"])
    wanted = specs[name][0]
    return [] if actual == wanted else [Drift(name, "partitions", str(wanted), str(actual))]


async def _settings_of(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    if not topics:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
    found: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for _, _, _, name, entries in response.resources:
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


async def lag(kafka: KafkaSettings, group: str) -> dict[TopicPartition, int]:
    """How many offsets each partition holds that the group has not committed past.

    Transaction markers take an offset each, so a recorder that has handled everything may show one or two.
    """
    async with _admin(kafka) as admin, _reader(kafka) as consumer:
        committed: Mapping[TopicPartition, OffsetAndMetadata]
        committed = await retrying(_RETRIED_SECONDS)(admin.list_consumer_group_offsets, group)
        existing = set(await admin.list_topics())
        partitions = [each for each in committed if each.topic in existing]
        ends = await consumer.end_offsets(partitions) if partitions else {}
    return {each: max(0, ends[each] - committed[each].offset) for each in partitions}


@asynccontextmanager
async def _admin(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = admin_client(kafka)
    try:
        await admin.start()
        yield admin
    finally:
        await close_quietly(admin)


@asynccontextmanager
async def _reader(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = reading_consumer(kafka)
    try:
        await consumer.start()
        yield consumer
    finally:
        await close_quietly(consumer)
