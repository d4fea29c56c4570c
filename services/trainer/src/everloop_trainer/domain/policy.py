"""When to train: a pure function of what is known about one pipeline.

All times are pipeline time (the highest `known_at` seen): a replayed year decides like a year lived.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from everloop_schemas.durations import format_duration
from everloop_schemas.events import Trigger

__all__ = [
    "Arrival",
    "Decision",
    "DriftSignal",
    "LastRun",
    "ManualRequest",
    "Policy",
    "Reigning",
    "Situation",
    "decide",
    "due_at",
    "rests_until",
]


@dataclass(frozen=True, slots=True)
class Policy:
    """The pipeline file's `training.when`, with `training.minimum_rows`.

    `compared_rows`: so many labelled rows a comparison with the champion needs; 0 where no gate asks for one.
    """

    new_labelled_rows: int | None
    drift: bool
    max_age: timedelta | None
    cooldown: timedelta
    minimum_rows: int
    compared_rows: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A new-data event whose labels this trainer has consumed."""

    event_id: str


@dataclass(frozen=True, slots=True)
class DriftSignal:
    """A drift event that no run has answered yet."""

    event_id: str
    kind: Literal["feature", "loss"]
    model_version: int


@dataclass(frozen=True, slots=True)
class ManualRequest:
    """A person's wish for a run; `parameters` override the pipeline's."""

    event_id: str
    reason: str
    parameters: Mapping[str, bool | int | float | str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest run, whatever came of it.

    `unseen_rows`: its labelled rows that the present champion has not trained on, where it counted them.
    """

    pipeline_version: int
    labels_at_cut: int
    decided_at: datetime
    unseen_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Reigning:
    """The champion, and the labels that lay below the cut it was trained on."""

    model_version: int
    pipeline_version: int
    labels_at_cut: int


@dataclass(frozen=True, slots=True)
class Situation:
    """One pipeline as the trainer knows it now. `labels` counts those consumed since the beginning."""

    pipeline_version: int
    labels: int
    pipeline_time: datetime | None
    active: bool = False
    last: LastRun | None = None
    champion: Reigning | None = None
    arrival: Arrival | None = None
    drift: DriftSignal | None = None
    manual: ManualRequest | None = None
    definition_event_id: str | None = None
    blocked: str | None = None
    """The broken data gates, in words: nothing starts by itself on such data."""
    unjudged: bool = False
    """Records were consumed whose announcement is still to come: no gate has judged them."""

    @property
    def new_labels(self) -> int:
        """Labels consumed since the last run's cut."""
        return self.labels - (self.last.labels_at_cut if self.last else 0)

    @property
    def unseen(self) -> int | None:
        """Labelled rows that the champion has not trained on; None without one.

        By the labels since its cut, until a run has counted the rows: not every label makes one.
        """
        if self.champion is None:
            return None
        if self.last is not None and self.last.unseen_rows is not None:
            return self.last.unseen_rows + self.new_labels
        return self.labels - self.champion.labels_at_cut

    @property
    def age(self) -> timedelta | None:
        """Pipeline time since the last run was decided."""
        if self.last is None or self.pipeline_time is None:
            return None
        return self.pipeline_time - self.last.decided_at


@dataclass(frozen=True, slots=True)
class Decision:
    """A trigger to act on, or why there is none."""

    trigger: Trigger | None
    why: str


Rule = Callable[[Policy, Situation], Trigger | None]


def decide(policy: Policy, now: Situation) -> Decision:
    """Choose at most one trigger: a person's first, then the most specific cause.

    What a run answers is taken at its start; what comes later waits for its end. A run whose model could not
    be compared with the champion, and so would be rejected, starts only if a person asks for it.
    """
    if now.pipeline_time is None:
        return Decision(None, "no records yet")
    if now.active:
        return Decision(None, "a run is active")
    trigger = _manual(now) or next(_automatic(policy, now), None)
    if trigger is None:
        return Decision(None, _why_not(policy, now))
    if trigger.kind != "manual" and not _comparable(policy, now):
        return Decision(None, _held_back(policy, now, trigger))
    return Decision(trigger, trigger.reason)


def _automatic(policy: Policy, now: Situation) -> Iterator[Trigger]:
    rested: tuple[Rule, ...] = (_drift, _new_data, _change_again, _schedule)
    rules = () if now.blocked or now.unjudged or _cooling(policy, now) else rested
    return (trigger for rule in (_changed_pipeline, *rules) if (trigger := rule(policy, now)) is not None)


def _comparable(policy: Policy, now: Situation) -> bool:
    return now.unseen is None or now.unseen >= policy.compared_rows


def rests_until(policy: Policy, now: Situation) -> datetime | None:
    """Until when (pipeline time) neither data, drift nor age starts a run; None before the first run."""
    return None if now.last is None else now.last.decided_at + policy.cooldown


def due_at(policy: Policy, now: Situation) -> datetime | None:
    """From when on (pipeline time) age alone asks for a run; None where it never does, or not yet."""
    if now.last is None or policy.max_age is None:
        return None
    return now.last.decided_at + policy.max_age


def _cooling(policy: Policy, now: Situation) -> bool:
    return now.age is not None and now.age < policy.cooldown


def _manual(now: Situation) -> Trigger | None:
    if now.manual is None:
        return None
    return Trigger(kind="manual", event_id=now.manual.event_id, reason=now.manual.reason)


def _changed_pipeline(policy: Policy, now: Situation) -> Trigger | None:
    if now.last is None or now.definition_event_id is None or now.labels < policy.minimum_rows:
        return None
    if now.last.pipeline_version == now.pipeline_version:
        return None
    reason = f"pipeline version {now.pipeline_version} replaced version {now.last.pipeline_version}"
    return Trigger(kind="changed-pipeline", event_id=now.definition_event_id, reason=reason)


def _change_again(policy: Policy, now: Situation) -> Trigger | None:
    """A change whose run found fewer rows to compare on than the labels had promised is not answered yet."""
    if now.last is None or now.last.unseen_rows is None or now.champion is None or now.arrival is None:
        return None
    changed = now.champion.pipeline_version != now.pipeline_version == now.last.pipeline_version
    if not changed or now.last.unseen_rows >= policy.compared_rows:
        return None
    reason = f"the last model of pipeline version {now.pipeline_version} could not be compared"
    return Trigger(kind="changed-pipeline", event_id=now.arrival.event_id, reason=reason)


def _drift(policy: Policy, now: Situation) -> Trigger | None:
    if not policy.drift or now.drift is None or now.new_labels < policy.minimum_rows:
        return None
    reason = f"{now.drift.kind} drift of model {now.drift.model_version}; {now.new_labels} new labelled rows"
    kind: Literal["drift", "performance"] = "performance" if now.drift.kind == "loss" else "drift"
    return Trigger(kind=kind, event_id=now.drift.event_id, reason=reason)


def _new_data(policy: Policy, now: Situation) -> Trigger | None:
    if policy.new_labelled_rows is None or now.arrival is None or now.new_labels < policy.new_labelled_rows:
        return None
    reason = f"{now.new_labels} new labelled rows, {policy.new_labelled_rows} asked for"
    return Trigger(kind="new-data", event_id=now.arrival.event_id, reason=reason)


def _schedule(policy: Policy, now: Situation) -> Trigger | None:
    if policy.max_age is None or now.age is None or now.arrival is None:
        return None
    if now.age < policy.max_age or now.new_labels < policy.minimum_rows:
        return None
    reason = f"the last run is {now.age} old in pipeline time, {policy.max_age} allowed"
    return Trigger(kind="schedule", event_id=now.arrival.event_id, reason=reason)


def _held_back(policy: Policy, now: Situation, trigger: Trigger) -> str:
    model = now.champion.model_version if now.champion else None
    return (
        f"{trigger.reason}; starts when it can be compared with the champion: {now.unseen} of the"
        f" {policy.compared_rows} labelled rows needed are newer than what model {model} was trained on"
    )


def _why_not(policy: Policy, now: Situation) -> str:
    if now.blocked:
        return f"blocked by the quality of the data: {now.blocked}"
    until = rests_until(policy, now)
    if _cooling(policy, now) and until is not None:
        rest = f"{format_duration(policy.cooldown)} after the last run"
        return f"cooling down until {_minute(until)} in pipeline time, {rest}; {_rows(policy, now)}"
    return _rows(policy, now) + _unannounced(policy, now) + _by_age(policy, now)


def _rows(policy: Policy, now: Situation) -> str:
    if policy.new_labelled_rows is None:
        return f"{now.new_labels} new labelled rows; their number asks for no run"
    return f"{now.new_labels} of {policy.new_labelled_rows} new labelled rows"


def _unannounced(policy: Policy, now: Situation) -> str:
    wanted = policy.new_labelled_rows
    due = wanted is not None and now.new_labels >= wanted
    return "; ingest has yet to judge and announce them" if now.unjudged or due else ""


def _by_age(policy: Policy, now: Situation) -> str:
    due = due_at(policy, now)
    if due is None:
        return ""
    return f", or {policy.minimum_rows} of them from {_minute(due)} in pipeline time on"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
