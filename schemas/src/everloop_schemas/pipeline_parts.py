"""The sections of a pipeline file, as models: what each key means, its type and its default."""

import keyword
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic import Field as Key
from pydantic_core import PydanticCustomError

from everloop_schemas.durations import Duration

__all__ = [
    "Action",
    "Expectation",
    "Expression",
    "FieldRule",
    "FieldSpec",
    "Gate",
    "Label",
    "Metric",
    "Model",
    "Monitor",
    "Name",
    "Observation",
    "PipelineTest",
    "Quality",
    "Rollout",
    "Rows",
    "Rule",
    "Search",
    "ServiceLevels",
    "Training",
    "When",
]

RESERVED_NAMES = frozenset(
    {"id", "known_at", "event_time", "tz", "window", "by", "over", "true", "false", "null"}
)
"""Words with a meaning of their own in records or in the feature language."""


def _usable_name(name: str) -> str:
    if keyword.iskeyword(name) or name in RESERVED_NAMES:
        context = {"name": name, "mend": f"choose another name, such as {name}_value"}
        raise PydanticCustomError("reserved-name", "'{name}' is a word of the platform", context)
    return name


_NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_]{0,62}$"
Name = Annotated[str, Key(pattern=_NAME_PATTERN), AfterValidator(_usable_name)]
"""A field's or feature's name: usable in an expression."""
Expression = Annotated[str, Key(min_length=1, max_length=2000)]
"""Text of the feature language; its meaning is checked by everloop_features."""
Metric = Literal["log_loss", "brier", "auc", "mae", "rmse"]
Action = Literal["refuse", "quarantine", "warn"]
"""What becomes of a record that breaks a rule. Over HTTP, `refuse` answers 422 for that row, `quarantine`
accepts it and the worker quarantines it; from Kafka both quarantine. `warn` lets it in, counted and marked.
"""
FieldRule = Literal["type", "required", "min", "max", "allowed-values", "pattern", "max-length"]
"""The reason codes of a field's own rules."""
Share = Annotated[float, Key(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Key(allow_inf_nan=False)]


class Section(BaseModel):
    """A part of the file: no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    @model_serializer(mode="wrap")
    def _without_absent_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what would be null anyway: a key added later changes no old definition's digest."""
        fields = type(self).model_fields
        return {
            key: value
            for key, value in handler(self).items()
            if value is not None or fields[key].default is not None
        }


class FieldSpec(Section):
    """One field of an observation or a label."""

    type: Literal["category", "number", "integer", "boolean", "string", "timestamp"]
    """What its JSON value is: `category` and `string` are text, `timestamp` is RFC 3339 text."""
    unit: str | None = None
    """The unit of its values, for people."""
    nullable: bool = False
    """Whether a record may have null here, or leave it out."""
    min: Finite | None = None
    """The lowest value that is accepted (number and integer only)."""
    max: Finite | None = None
    """The highest value that is accepted (number and integer only)."""
    values: Annotated[list[str], Key(min_length=1)] | None = None
    """The only values that are accepted (category only); without it every text is."""
    pattern: Annotated[str, Key(min_length=1, max_length=500)] | None = None
    """A regular expression in RE2's syntax that the whole text matches (category and string only)."""
    max_length: Annotated[int, Key(ge=1, le=1_000_000)] | None = None
    """How many characters are accepted (category and string only)."""
    actions: Annotated[dict[FieldRule, Action], Key(min_length=1)] | None = None
    """What becomes of a record that breaks one of the field's rules, by the rule's code; else `refuse`."""
    description: str | None = None
    pii: bool | None = None
    """Whether it is about a person: its values are then shown in no reason of a refusal."""
    source: str | None = None
    """Where its values come from, for people."""
    owner: str | None = None
    """Who answers for it, for people."""


class Rule(Section):
    """A rule over several fields of one record, such as `arrived >= departed`."""

    name: Name
    """Names the rule in reasons, as `rule:NAME`."""
    expr: Expression
    """A boolean expression of the feature language over the record's fields; null passes."""
    description: str | None = None
    """What to do, in the words of those who send records."""
    action: Action = "refuse"


class Observation(Section):
    """What one data event holds."""

    event_time: Annotated[str, Key(pattern=_NAME_PATTERN)]
    """The name, in the record, of the time when it happened (RFC 3339)."""
    fields: Annotated[dict[Name, FieldSpec], Key(min_length=1)]
    replay_sources: list[str] = []
    """CloudEvents sources that may say when a record was known: they replay history."""
    max_future_skew: Annotated[Duration, Key(ge=timedelta(0))] = timedelta(minutes=5)
    """How far an event time may lie after the time the record was known."""
    allowed_lateness: Annotated[Duration, Key(gt=timedelta(0))] | None = None
    """How long after its event time an observation may become known; without it, however long."""
    when_late: Literal["apply", "quarantine"] | None = None
    """What becomes of a later one: `quarantine` (the default), or `apply` it now, marked with a warning."""
    rules: Annotated[list[Rule], Key(min_length=1, max_length=100)] | None = None
    """Rules over several fields of an observation."""
    dedupe_records: Annotated[int, Key(ge=1, le=100_000_000)] = 200_000
    """How many records of a partition duplicates are searched in."""
    notify_every: Annotated[int, Key(ge=1)] = 1000
    """Accepted records of a partition between two data-arrived events."""


class Label(Section):
    """The outcome of an observation, and the value that a model learns from it."""

    type: Literal["binary", "number"]
    fields: Annotated[dict[Name, FieldSpec], Key(min_length=1)]
    value: Annotated[dict[Name, Expression], Key(min_length=1, max_length=1)]
    """The value's name and its expression over the label's and the observation's fields."""
    expected_after: Annotated[Duration, Key(gt=timedelta(0))] = timedelta(days=1)
    """How long after its observation a label is usually known."""
    rules: Annotated[list[Rule], Key(min_length=1, max_length=100)] | None = None
    """Rules over several fields of a label, the partition key's among them."""

    @property
    def name(self) -> str:
        """The value's name."""
        return next(iter(self.value))

    @property
    def expression(self) -> str:
        """The value's expression."""
        return next(iter(self.value.values()))


class When(Section):
    """What starts a training run."""

    new_labelled_rows: Annotated[int, Key(ge=1)] | None = 5000
    """A run when this many rows with a label have come since the last one; null: never for this reason."""
    drift: bool = True
    """A run when drift is detected."""
    max_age: Annotated[Duration, Key(gt=timedelta(0))] | None = timedelta(days=30)
    """A run when the newest model is older than this; null: never for this reason."""
    cooldown: Annotated[Duration, Key(ge=timedelta(0))] = timedelta(days=1)
    """The least time between two runs that nobody asked for. Pipeline time, like every duration here."""


class Rows(Section):
    """Which rows a dataset has."""

    window: Annotated[Duration, Key(gt=timedelta(0))] = timedelta(days=365)
    """Rows whose event time is at most this long before the cut."""


class Model(Section):
    """The model's family and its parameters."""

    family: Literal["lightgbm"] = "lightgbm"
    trees: Annotated[int, Key(ge=1, le=10_000)] = 300
    leaves: Annotated[int, Key(ge=2, le=4096)] = 31
    learning_rate: Annotated[float, Key(gt=0, le=1)] = 0.05
    min_data_in_leaf: Annotated[int, Key(ge=1)] = 20


class Search(Section):
    """How parameters are to be searched; both limits will hold. Kept, but not carried out yet."""

    trials: Annotated[int, Key(ge=1, le=10_000)] = 20
    seconds: Annotated[int, Key(ge=1)] = 60


class Training(Section):
    """When and how models are trained."""

    when: When = When()
    rows: Rows = Rows()
    model: Model = Model()
    search: Search | None = None
    """Without it the model's parameters are taken as they stand."""
    test_share: Annotated[float, Key(gt=0, le=0.5)] = 0.2
    """The newest share of the rows: kept for the comparison."""
    refit: bool = True
    """Whether the published model is trained again on all rows, the test rows among them."""
    minimum_rows: Annotated[int, Key(ge=10)] = 500
    """No run with fewer labelled rows."""


class Gate(Section):
    """One check that a model version must pass; exactly one of the four rules stands in it."""

    metric: Metric
    better_than: Literal["champion", "prior"] | None = None
    """Better than the serving model (passes while there is none), or than the label's mean of the past."""
    confidence: Annotated[float, Key(ge=0.5, lt=1)] | None = None
    """With `better_than`: the share of resamples of whole days in which it must be better."""
    at_most: Finite | None = None
    at_least: Finite | None = None
    slice: Name | None = None
    """With `at_most_ratio`: the category feature or field by whose values the rows are cut."""
    at_most_ratio: Annotated[float, Key(gt=0, allow_inf_nan=False)] | None = None
    """In each slice, the metric over that of the champion (without one: of the prior) is at most this."""


class Rollout(Section):
    """How an approved version reaches production."""

    mode: Literal["direct", "shadow", "canary", "manual"] = "direct"


class ServiceLevels(Section):
    """What production promises."""

    latency_p95: Annotated[Duration, Key(gt=timedelta(0))] | None = None
    log_loss: Finite | None = None
    brier: Finite | None = None
    auc: Share | None = None
    mae: Finite | None = None
    rmse: Finite | None = None


class Monitor(Section):
    """How production is watched."""

    false_alarms_per_100_days: Annotated[float, Key(gt=0, le=100)] = 1
    """How many false drift alarms are acceptable."""
    reference_days: Annotated[int, Key(ge=2, le=3660)] = 20
    """Whole days that the current ones are compared with."""
    slo: ServiceLevels = ServiceLevels()


class Expectation(Section):
    """One declared gate on the data of a window; the words are those of Great Expectations."""

    expect: Literal["not_null", "between", "in_set", "row_count", "volume", "unique", "accepted", "fresh"]
    """What is expected of the rows that became known within a window."""
    field: Name | None = None
    """The observation's or label's field (not_null, between, in_set)."""
    mostly: Share = 1.0
    """The share of the rows that must be so; a few rows more or less, as chance has it, break no gate."""
    min: Finite | None = None
    """between: the lowest value; row_count: rows of a window; volume: share of the usual number of rows."""
    max: Finite | None = None
    """The highest, likewise."""
    values: Annotated[list[str], Key(min_length=1)] | None = None
    """in_set: the values that are expected."""
    within: Annotated[Duration, Key(gt=timedelta(0))] | None = None
    """fresh: how long after its event time an observation is known at the latest."""
    on_broken: Literal["block", "warn"] | None = None
    """What happens when it is broken; without it what the section says."""


class Quality(Section):
    """Gates on the data itself, window by window of the time at which records became known."""

    window: Annotated[Duration, Key(ge=timedelta(minutes=10), le=timedelta(weeks=1))] = timedelta(hours=1)
    """The length of a window; a week is a whole number of them."""
    on_broken: Literal["block", "warn"] = "block"
    """block: no run that nobody asked for starts until a later window passes or a person accepts the data."""
    learned: bool = True
    """Whether new data is also held against the profile that the newest training published."""
    false_alarms_per_100_windows: Annotated[float, Key(gt=0, le=10)] = 0.1
    """How many windows in which nothing is wrong may break a gate, over all gates that have a tolerance."""
    expect: Annotated[list[Expectation], Key(max_length=200)] = []


class PipelineTest(Section):
    """Records in, vectors out."""

    name: str
    records: Annotated[list[dict[str, JsonValue]], Key(min_length=1)]
    """Observations and labels as producers send them, in the order in which they become known."""
    vector: dict[Name, JsonValue] = {}
    """The expected values of the last observation; features that are not named are not compared."""
    vectors: dict[str, dict[Name, JsonValue]] | None = None
    """The same by observation: its id, then its expected values."""
    tolerance: Annotated[Finite, Key(ge=0)] | None = None
    """How far a number may be from the expected one; without it they are equal to the last bit."""
