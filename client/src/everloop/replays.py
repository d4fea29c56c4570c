"""Replays of logs by new pipeline versions: how far they are, and what one would be."""

from collections import defaultdict
from dataclasses import dataclass

import httpx
from everloop_kernel.kafka_reading import read_to_end
from everloop_kernel.settings import KafkaSettings
from prometheus_client.parser import text_string_to_metric_families

from everloop.history.log import Log

__all__ = ["Replay", "ReplayCost", "replay_cost", "replays_under_way"]

_POSITION, _TARGET = "everloop_feature_replay_position", "everloop_feature_replay_target"
_ROWS_PER_SECOND = 25_000
"""What one feature process replays, measured by bench/feature.py on a slow core; others differ."""
_SAMPLE = 500
_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Replay:
    """A pipeline whose newest version has yet to see what an earlier one had seen; log offsets together."""

    pipeline: str
    position: int
    target: int

    @property
    def share(self) -> float:
        """How much of it is done, 0…1."""
        return self.position / self.target if self.target else 1.0


@dataclass(frozen=True, slots=True)
class ReplayCost:
    """What replaying a log takes, about."""

    rows: int
    bytes: int
    seconds: float


def replays_under_way(feature_url: str) -> list[Replay]:
    """What the feature service at this address replays now; nothing where it does not answer."""
    try:
        text = httpx.get(f"{feature_url}/metrics", timeout=_TIMEOUT_SECONDS).raise_for_status().text
    except httpx.HTTPError:
        return []
    return _replays(text)


def _replays(text: str) -> list[Replay]:
    found: defaultdict[str, dict[str, int]] = defaultdict(lambda: {_POSITION: 0, _TARGET: 0})
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name in (_POSITION, _TARGET) else ():
            found[sample.labels["pipeline"]][sample.name] += int(sample.value)
    all_ = [Replay(name, one[_POSITION], one[_TARGET]) for name, one in sorted(found.items())]
    return [one for one in all_ if one.position < one.target]


async def replay_cost(kafka: KafkaSettings, pipeline: str) -> ReplayCost:
    """Rows and bytes of a pipeline's log, by its offsets and its newest records."""
    log = Log(kafka, pipeline)
    rows, bytes_ = 0, 0.0
    for partition, (first, end) in (await log.bounds()).items():
        rows += end - first
        bytes_ += (end - first) * await _mean_bytes(kafka, log, partition)
    return ReplayCost(rows, round(bytes_), rows / _ROWS_PER_SECOND)


async def _mean_bytes(kafka: KafkaSettings, log: Log, partition: int) -> float:
    sizes = [
        len(record.value or b"") + len(record.key or b"")
        async for page in read_to_end(kafka, log.partition(partition), last=_SAMPLE)
        for record in page
    ]
    return sum(sizes) / len(sizes) if sizes else 0.0
