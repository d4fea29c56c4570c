"""One logged vector, computed again from the log and taken apart."""

from dataclasses import dataclass

from everloop_features import LogRecord
from everloop_features.explain import ExplainedValue, Explainer, same_bits
from everloop_schemas.events import Value, VectorComputed
from everloop_schemas.pipeline import Pipeline

from everloop.errors import EverloopError
from everloop.history.log import Log

__all__ = ["ExplainedVector", "LoggedValue", "explain_logged", "find_vector"]


@dataclass(frozen=True, slots=True)
class LoggedValue:
    """A value as it was logged, and what it is made of; `equal` to the last bit, or not."""

    logged: Value
    equal: bool
    explained: ExplainedValue


@dataclass(frozen=True, slots=True)
class ExplainedVector:
    """A logged vector, its observation, and whether the log gives the same vector again.

    `missing_before` is the first offset that Kafka still has where the beginning of the log is gone: then
    older records may be missing below, and values may differ for that reason alone.
    """

    pipeline: str
    pipeline_version: int
    partition: int
    offset: int
    observation: LogRecord
    values: tuple[LoggedValue, ...]
    missing_before: int | None

    @property
    def equal(self) -> bool:
        """Whether every value came out again, bit for bit."""
        return all(value.equal for value in self.values)


async def find_vector(log: Log, observation_id: str, version: int | None) -> VectorComputed:
    """The newest logged vector of an observation, of one pipeline version or the newest.

    Raises EverloopError when there is none.
    """
    partitions = await log.first_offsets()
    found = [vector for partition in partitions for vector in await log.vectors(partition, observation_id)]
    wanted = [vector for vector in found if version in (None, vector.pipeline_version)]
    if not wanted:
        versions = sorted({vector.pipeline_version for vector in found})
        known = f"it has vectors of the versions {versions}" if versions else "no vector has this id"
        raise EverloopError(
            f"There is no vector of {observation_id!r}: {known}.",
            "Every observation that ingest accepts gets one, once the feature service has read it.",
        )
    return max(wanted, key=lambda vector: (vector.pipeline_version, vector.log_offset))


async def explain_logged(
    log: Log, pipeline: Pipeline, vector: VectorComputed, *, newest: int
) -> ExplainedVector:
    """Replay the vector's log partition up to its own observation, and compare.

    Raises EverloopError when the observation is not in the log any more.
    """
    partition, offset = vector.log_partition, vector.log_offset
    observation = await _observation(log, partition, offset)
    explainer = Explainer(pipeline, observation, newest=newest)
    async for page in log.pages(partition, below=offset):
        explainer.add(page)
    first = (await log.first_offsets())[partition]
    values = tuple(
        LoggedValue(logged, same_bits(logged, explained.value), explained)
        for logged, explained in zip(vector.values, explainer.explain().values, strict=True)
    )
    return ExplainedVector(
        pipeline.pipeline,
        vector.pipeline_version,
        partition,
        offset,
        observation,
        values,
        first if first > 0 else None,
    )


async def _observation(log: Log, partition: int, offset: int) -> LogRecord:
    async for page in log.pages(partition, first=offset, below=offset + 1):
        for _, record in page:
            return record
    raise EverloopError(
        f"The log has no record at partition {partition}, offset {offset} any more.",
        "Kafka's retention has dropped it; keep the log's topic for as long as its vectors.",
    )
