"""Replays of logs by new pipeline versions: how far they are, and what one would be."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import httpx
from everloop_kernel.kafka_reading import read_to_end
from everloop_kernel.settings import KafkaSettings
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from everloop.history.log import Log

__all__ = ["Replay", "ReplayCost", "replay_cost", "replays_under_way"]

_PREFIX = "everloop_feature_replay_"
_ROWS_PER_SECOND = 25_000
"""What one feature process replays, measured by bench/feature.py on a slow core; others differ."""
_SHARE = 0.5
"""What a replay may take of the process where nobody says otherwise: `EVERLOOP_FEATURE_REPLAY_SHARE`."""
_SAMPLE = 500
_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Replay:
    """A pipeline with a version that has yet to see what live records have seen; log offsets together.

    `rows_per_second` is its pace; `seconds_left` until the last partition has caught up with live records,
    infinite while one does not come nearer.
    """

    pipeline: str
    position: int
    target: int
    rows_per_second: float
    seconds_left: float

    @property
    def share(self) -> float:
        """How much of it is done, 0…1."""
        return self.position / self.target if self.target else 1.0

    @property
    def rows_left(self) -> int:
        """How many rows are to go; transaction markers count as rows."""
        return self.target - self.position


@dataclass(frozen=True, slots=True)
class ReplayCost:
    """What replaying a log takes, about; `share` is what the feature service gives to replays."""

    rows: int
    bytes: int
    seconds: float
    share: float


def replays_under_way(feature_url: str) -> list[Replay]:
    """What the feature service at this address replays now; nothing where it does not answer."""
    return _replays(_samples(feature_url))


def _samples(feature_url: str) -> list[Sample]:
    """Its metrics of replays; none where it does not answer."""
    try:
        text = httpx.get(f"{feature_url}/metrics", timeout=_TIMEOUT_SECONDS).raise_for_status().text
    except httpx.HTTPError:
        return []
    families = text_string_to_metric_families(text)
    return [one for family in families if family.name.startswith(_PREFIX) for one in family.samples]


def _replays(samples: Iterable[Sample]) -> list[Replay]:
    """A pipeline's partitions together: rows add up, the slowest one says when it is over."""
    found: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if name := sample.labels.get("pipeline"):
            found[name][sample.name.removeprefix(_PREFIX)].append(sample.value)
    all_ = [
        Replay(
            pipeline=name,
            position=int(sum(one["position"])),
            target=int(sum(one["target"])),
            rows_per_second=sum(one["rows_per_second"]),
            seconds_left=max(one["seconds_left"], default=math.inf),
        )
        for name, one in sorted(found.items())
    ]
    return [one for one in all_ if one.position < one.target]


async def replay_cost(kafka: KafkaSettings, pipeline: str, feature_url: str) -> ReplayCost:
    """Rows and bytes of a pipeline's log, by its offsets and newest records; the time without live ones."""
    log = Log(kafka, pipeline)
    rows, bytes_ = 0, 0.0
    for partition, (first, end) in (await log.bounds()).items():
        rows += end - first
        bytes_ += (end - first) * await _mean_bytes(kafka, log, partition)
    shares = [one.value for one in _samples(feature_url) if one.name == f"{_PREFIX}share"]
    share = shares[0] if shares else _SHARE
    return ReplayCost(rows, round(bytes_), rows / _ROWS_PER_SECOND / share, share)


async def _mean_bytes(kafka: KafkaSettings, log: Log, partition: int) -> float:
    sizes = [
        len(record.value or b"") + len(record.key or b"")
        async for page in read_to_end(kafka, log.partition(partition), last=_SAMPLE)
        for record in page
    ]
    return sum(sizes) / len(sizes) if sizes else 0.0
