"""The registry's decision topics, read as tables."""

import logging
from collections.abc import Sequence

from everloop_kernel.errors import one_line
from everloop_schemas import canonical, cloudevents
from everloop_schemas.events import DeploymentChanged, PipelineDefined
from everloop_schemas.rejected import Rejected

from everloop_feature.application.pipelines import Pipelines, UnusablePipelineError

__all__ = ["TOPICS_READ", "Decisions"]

TOPICS_READ = (PipelineDefined.topic, DeploymentChanged.topic)

_log = logging.getLogger(__name__)


class Decisions:
    """Translates decisions into calls; one that cannot be read or computed leaves what was there."""

    def __init__(self, pipelines: Pipelines) -> None:
        self._pipelines = pipelines

    def __call__(
        self, topic: str, key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> None:
        """Take one entry of a table."""
        if value is None:
            return
        if topic == PipelineDefined.topic:
            defined = cloudevents.decode(PipelineDefined, value, headers)
            self._refuse(key, defined) if isinstance(defined, Rejected) else self._define(defined)
        else:
            changed = cloudevents.decode(DeploymentChanged, value, headers)
            self._refuse(key, changed) if isinstance(changed, Rejected) else self._deploy(changed)

    def _define(self, event: PipelineDefined) -> None:
        try:
            self._pipelines.define(event.pipeline, event.version, canonical.dumps(event.definition))
        except UnusablePipelineError as error:
            _log.error("pipeline %s stays as it was: %s", event.pipeline, one_line(error))  # one line

    def _deploy(self, event: DeploymentChanged) -> None:
        models = [event.champion, event.challenger, *event.pinned]
        versions = frozenset(model.pipeline_version for model in models if model is not None)
        self._pipelines.deploy(event.pipeline, versions)

    @staticmethod
    def _refuse(key: bytes, rejected: Rejected) -> None:
        _log.error("a decision about %s cannot be read: %s", key.decode("utf-8", "replace"), rejected.reason)
