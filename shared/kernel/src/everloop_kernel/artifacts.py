"""Artifacts on their topic: cut into chunks, found again by their SHA-256, and checked."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from everloop_kernel.errors import EverloopError
from everloop_kernel.kafka import close_quietly
from everloop_kernel.kafka_reading import partitions_of, started_reader
from everloop_kernel.settings import KafkaSettings

__all__ = ["CHUNK_BYTES", "TOPIC", "ArtifactCorrupt", "ArtifactMissing", "chunks", "fetch"]

TOPIC: Final = "trainer-artifact-chunk-v1"
CHUNK_BYTES: Final = 512 << 10
_FETCH_BYTES: Final = 16 << 20
_POLL_MS: Final = 200
_MAX_CHUNKS: Final = 8192

Headers = list[tuple[str, bytes]]


class ArtifactMissing(EverloopError):  # noqa: N818
    """Not every chunk of the artifact was there within the time that was given."""


class ArtifactCorrupt(EverloopError):  # noqa: N818
    """The chunks do not add up to the digest they are filed under."""


def chunks(data: bytes) -> list[tuple[Headers, bytes]]:
    """The records to publish for an artifact, with their headers; the Kafka key is the digest, in ASCII."""
    digest = hashlib.sha256(data).hexdigest()
    pieces = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)] or [b""]
    return [(_headers(digest, index, len(pieces)), piece) for index, piece in enumerate(pieces)]


def _headers(digest: str, index: int, count: int) -> Headers:
    return [
        ("everloop-sha256", digest.encode()),
        ("everloop-index", str(index).encode()),
        ("everloop-count", str(count).encode()),
    ]


@dataclass(slots=True)
class _Assembly:
    """Chunks of one artifact, in whatever order they come; one that was published twice counts once."""

    sha256: str
    count: int | None = None
    pieces: dict[int, bytes] = field(default_factory=dict)

    def add(self, record: ConsumerRecord) -> bool:
        """Take a record if it is a chunk of this artifact; True when nothing is missing any more."""
        about: Mapping[str, bytes | None] = dict(record.headers)
        if about.get("everloop-sha256") != self.sha256.encode() or record.value is None:
            return False
        index, count = _number(about.get("everloop-index")), _number(about.get("everloop-count"))
        if index is None or count is None or not 0 <= index < count <= _MAX_CHUNKS:
            return False
        self.count = count
        self.pieces[index] = record.value
        return len(self.pieces) == count

    def data(self) -> bytes:
        """The artifact; raises `ArtifactCorrupt`."""
        data = b"".join(self.pieces[index] for index in sorted(self.pieces))
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise ArtifactCorrupt(f"the chunks of artifact {self.sha256} have the digest {found}")
        return data


def _number(text: bytes | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


async def fetch(kafka: KafkaSettings, sha256: str, timeout: float = 30.0) -> bytes:  # noqa: ASYNC109
    """Read an artifact's chunks until it is whole, and verify it.

    Chunks may still be on their way: the topic is read from its beginning and then followed, for `timeout` s.

    Raises:
        ArtifactMissing: chunks are missing after `timeout` seconds, or the topic does not exist.
        ArtifactCorrupt: the bytes do not have the digest.
    """
    assembly = _Assembly(sha256)
    try:
        async with asyncio.timeout(timeout):
            await _collect(kafka, assembly)
    except TimeoutError as error:
        have, want = len(assembly.pieces), assembly.count or "an unknown number of"
        raise ArtifactMissing(f"{have} of {want} chunks of artifact {sha256} after {timeout:g} s") from error
    return assembly.data()


async def _collect(kafka: KafkaSettings, assembly: _Assembly) -> None:
    consumer = await started_reader(kafka, max_partition_fetch_bytes=_FETCH_BYTES)
    try:
        partitions = await _partitions(consumer)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while not await _next_page_completes(consumer, assembly):
            pass
    finally:
        await close_quietly(consumer, seconds=1.0)


async def _partitions(consumer: AIOKafkaConsumer) -> Sequence[TopicPartition]:
    partitions: Sequence[TopicPartition] = ()
    while not partitions:
        partitions = await partitions_of(consumer, TOPIC)
        await asyncio.sleep(0 if partitions else _POLL_MS / 1000)
    return partitions


async def _next_page_completes(consumer: AIOKafkaConsumer, assembly: _Assembly) -> bool:
    got: Mapping[TopicPartition, Sequence[ConsumerRecord]] = await consumer.getmany(timeout_ms=_POLL_MS)
    return any(assembly.add(record) for page in got.values() for record in page)
