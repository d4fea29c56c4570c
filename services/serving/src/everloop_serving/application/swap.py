"""One deployment becomes what answers, in a single assignment, or nothing changes."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from everloop_kernel import telemetry
from everloop_kernel.stream_writer import Output
from everloop_schemas.events import DeploymentChanged, ModelLoaded, ModelRef
from everloop_schemas.ids import derived_id

from everloop_serving.application.load_model import ModelLoader
from everloop_serving.application.loaded_model import LoadedModel
from everloop_serving.application.models import Arms, Models
from everloop_serving.application.ports import Cache, ModelRefused, NotNow, States
from everloop_serving.application.prediction_events import EventWriter
from everloop_serving.metrics import LOADED_MODELS, REFUSED_MODELS, SWAP_SECONDS

__all__ = ["Outcome", "Swap"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether the arms were replaced, and whether nothing is left to be tried again."""

    swapped: bool
    complete: bool


@dataclass(frozen=True, slots=True)
class _Report:
    """What the events about one deployment have in common."""

    deployment: DeploymentChanged
    started: float


class Swap:
    """Applies deployments."""

    def __init__(
        self,
        models: Models,
        loader: ModelLoader,
        *,
        states: States,
        cache: Cache,
        writer: EventWriter,
        publish: Callable[[Output], None],
        expect: Callable[[str, int], None],
        instance: str,
    ) -> None:
        self._models = models
        self._loader = loader
        self._states = states
        self._cache = cache
        self._writer = writer
        self._publish = publish
        self._expect = expect
        self._instance = instance

    async def apply(self, deployment: DeploymentChanged, *, started: float, report_missing: bool) -> Outcome:
        """Load what is new and swap.

        A champion that is refused changes nothing: the one before it goes on. Challenger and pinned versions
        that fail are left out. Raises NotNow when the champion's bytes cannot be had now.
        """
        report = _Report(deployment, started)
        champion: LoadedModel | None = None
        if deployment.champion is not None:
            try:
                champion = await self._load(deployment.champion, report)
            except ModelRefused as error:
                self._refused(deployment.champion, report, error)
                return Outcome(swapped=False, complete=True)
            except NotNow as error:
                if report_missing:
                    self._tell(deployment.champion, report, error=str(error))
                raise
        others, complete = await self._load_others(report)
        await self._replace(report, champion, others)
        return Outcome(swapped=True, complete=complete)

    async def _load_others(self, report: _Report) -> tuple[dict[int, LoadedModel], bool]:
        """Challenger and pinned versions that can be had; whether none is left for later."""
        found: dict[int, LoadedModel] = {}
        complete = True
        for reference in _others(report.deployment):
            try:
                found[reference.model_version] = await self._load(reference, report)
            except ModelRefused as error:
                self._refused(reference, report, error)
            except NotNow as error:
                complete = False
                _log.warning("version %d is left out for now: %s", reference.model_version, error)
        return found, complete

    async def _load(self, reference: ModelRef, report: _Report) -> LoadedModel:
        """The version as it is loaded already, or loaded now."""
        pipeline = report.deployment.pipeline
        arms = self._models.arms(pipeline)
        known = arms.by_version.get(reference.model_version) if arms is not None else None
        if known is not None and known.reference == reference:
            return known
        with telemetry.span("load model", {"everloop.model_version": reference.model_version}) as span:
            model = await self._loader.load(pipeline, reference, wait_for_state=arms is not None)
            model.load_span = span.get_span_context() if telemetry.enabled() else None
        self._tell(reference, report, error=None)
        return model

    async def _replace(
        self, report: _Report, champion: LoadedModel | None, others: dict[int, LoadedModel]
    ) -> None:
        deployment = report.deployment
        name = deployment.pipeline
        before = self._models.arms(name)
        previous = _previous(before, champion)
        held = [*([previous] if previous else []), *others.values(), *([champion] if champion else [])]
        by_version = {model.model_version: model for model in held}
        challenger = deployment.challenger
        for model in by_version.values():
            self._expect(name, model.partitions)
        self._models.replace(
            name,
            Arms(
                revision=deployment.revision,
                champion=champion,
                challenger=None if challenger is None else others.get(challenger.model_version),
                challenger_share=deployment.challenger_share,
                previous=previous,
                by_version=by_version,
            ),
        )
        SWAP_SECONDS.labels(name).observe(time.monotonic() - report.started)
        self._announce(report, before, champion)
        self._states.keep_only(name, {model.pipeline_version for model in by_version.values()})
        self._cache.prune(self._used())

    def _announce(self, report: _Report, before: Arms | None, champion: LoadedModel | None) -> None:
        """Log and count the swap; a champion that was loaded before (a rollback) gets its event here."""
        name = report.deployment.pipeline
        version = None if champion is None else champion.model_version
        _log.info("%s: revision %d serves version %s", name, report.deployment.revision, version)
        _count_roles(name, self._models.arms(name))
        known = () if before is None else before.by_version.values()
        if (
            champion is not None
            and before is not None
            and champion in known
            and champion is not before.champion
        ):
            self._tell(champion.reference, report, error=None)

    def _used(self) -> set[str]:
        arms = [self._models.arms(name) for name in self._models]
        return {
            model.reference.artifact.sha256
            for each in arms
            if each is not None
            for model in each.by_version.values()
        }

    def _refused(self, reference: ModelRef, report: _Report, error: ModelRefused) -> None:
        name = report.deployment.pipeline
        REFUSED_MODELS.labels(name, "model").inc()
        _log.error("version %d of %s is refused: %s", reference.model_version, name, error)
        if self._models.arms(name) is None:
            self._models.pending[name] = f"version {reference.model_version} was refused: {error}"
        self._tell(reference, report, error=str(error))

    def _tell(self, reference: ModelRef, report: _Report, *, error: str | None) -> None:
        """Publish what happened to a version."""
        deployment = report.deployment
        cause = (
            self._instance,
            deployment.pipeline,
            deployment.revision,
            reference.model_version,
            error is None,
        )
        event = ModelLoaded(
            id=derived_id("\x1f".join(map(str, cause)), "model-loaded"),
            pipeline=deployment.pipeline,
            model_version=reference.model_version,
            revision=deployment.revision,
            instance=self._instance,
            loaded=error is None,
            error=error,
            seconds=time.monotonic() - report.started,
            loaded_at=datetime.now(UTC),
        )
        self._publish(self._writer.model_loaded(event, telemetry.traceparent()))


def _others(deployment: DeploymentChanged) -> Iterator[ModelRef]:
    champion = deployment.champion.model_version if deployment.champion is not None else None
    for reference in (deployment.challenger, *deployment.pinned):
        if reference is not None and reference.model_version != champion:
            yield reference


def _previous(before: Arms | None, champion: LoadedModel | None) -> LoadedModel | None:
    """The champion that was replaced last."""
    if before is None:
        return None
    return before.previous if before.champion is champion else before.champion


def _role(arms: Arms, model: LoadedModel) -> str:
    if model is arms.champion:
        return "champion"
    return "challenger" if model is arms.challenger else "previous" if model is arms.previous else "pinned"


def _count_roles(name: str, arms: Arms | None) -> None:
    """Renew the gauge of loaded versions."""
    for labels in [labels for labels in LOADED_MODELS._metrics if labels[0] == name]:  # noqa: SLF001  (no public way)
        LOADED_MODELS.remove(*labels)
    if arms is not None:
        for version, model in arms.by_version.items():
            LOADED_MODELS.labels(name, str(version), _role(arms, model)).set(1)
