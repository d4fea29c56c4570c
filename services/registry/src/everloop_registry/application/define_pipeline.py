"""A pipeline file is put: check it, create its topics, keep a new version if it changed, and say so."""

from dataclasses import dataclass

from everloop_schemas.events import PipelineDefined
from everloop_schemas.ids import derived_id
from everloop_schemas.pipeline import Pipeline, to_definition

from everloop_registry.application.errors import Refused
from everloop_registry.application.ports import Clock, Topics, Work
from everloop_registry.application.record import record
from everloop_registry.domain.audit import Deed
from everloop_registry.domain.deployment import Refusal
from everloop_registry.domain.pipelines import PipelineVersion, next_version

__all__ = ["Defined", "define_pipeline"]


@dataclass(frozen=True, slots=True)
class Defined:
    """The version in force after a put, and whether the put made it."""

    version: PipelineVersion
    created: bool


async def define_pipeline(
    pipeline: Pipeline, *, by: str, work: Work, topics: Topics, clock: Clock
) -> Defined:
    """Keep the definition as a new version when it changed, and tell it in either case.

    Whoever knows the version takes no notice of the same event again; whoever lost it, because its topic was
    damaged, has it back by `everloop apply`.

    The topics exist before anyone hears of the pipeline: a consumer that reacts finds them.

    Raises:
        Refused: when what may never change has changed.
    """
    await work.lock(pipeline.pipeline)
    current = await work.current_pipeline(pipeline.pipeline)
    now = clock()
    version = next_version(current, to_definition(pipeline), defined_at=now, defined_by=by)
    if isinstance(version, Refusal):
        raise Refused(version)
    async with work.kept_alive():
        await topics.ensure(pipeline)
    work.emit(_event(version), id=_event_id(version), key=version.pipeline)
    if current == version:
        return Defined(version, created=False)
    await work.add_pipeline_version(version)
    details = {"version": version.version, "sha256": version.sha256}
    await record(work, Deed(version.pipeline, by, "pipeline-defined", None, details), now)
    return Defined(version, created=True)


def _event(version: PipelineVersion) -> PipelineDefined:
    return PipelineDefined(
        pipeline=version.pipeline,
        version=version.version,
        definition=dict(version.definition),
        sha256=version.sha256,
        partitions=version.partitions,
        defined_at=version.defined_at,
        defined_by=version.defined_by,
    )


def _event_id(version: PipelineVersion) -> str:
    return derived_id(f"{version.pipeline}/{version.version}", "pipeline-defined")
