"""Rules of a pipeline file that look at more than one key."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from everloop_schemas.patterns import PatternError, compile_pattern
from everloop_schemas.pipeline_parts import FieldSpec, Gate, Rule
from everloop_schemas.problems import Path, Problem, dotted, suggest
from everloop_schemas.quality_rules import quality_problems

if TYPE_CHECKING:
    from everloop_schemas.pipeline import Pipeline

__all__ = ["METRICS", "check"]

METRICS = {"binary": ("log_loss", "brier", "auc"), "number": ("mae", "rmse")}
"""The metrics that exist for each type of label."""


def check(pipeline: "Pipeline") -> list[Problem]:
    """Every cross-key rule that `pipeline` breaks."""
    return [problem for rule in _RULES for problem in rule(pipeline)]


def _problem(path: Path, rule: str, message: str, mend: str) -> Problem:
    return Problem("", 0, dotted(path), rule, message, mend)


def _partition_key(pipeline: "Pipeline") -> Iterator[Problem]:
    fields = pipeline.observation.fields
    for position, name in enumerate(pipeline.partition_by):
        path = ("partition_by", position)
        if name not in fields:
            known = f"use one of: {', '.join(fields)}"
            yield _problem(path, "unknown-field", f"the observation has no field '{name}'", known)
        elif name in pipeline.partition_by[:position]:
            yield _problem(path, "duplicate", f"'{name}' stands there twice", "keep one of them")


def _times(pipeline: "Pipeline") -> Iterator[Problem]:
    name = pipeline.observation.event_time
    if name in ("id", "known_at"):
        yield _problem(
            ("observation", "event_time"), "reserved-name", f"'{name}' has another meaning", "rename it"
        )
    if name in pipeline.observation.fields:
        message = f"'{name}' is the event time and cannot be a field too"
        yield _problem(
            ("observation", "fields", name), "ambiguous-name", message, "take it out of the fields"
        )


def _label_names(pipeline: "Pipeline") -> Iterator[Problem]:
    observed = {*pipeline.observation.fields, pipeline.observation.event_time}
    for name in pipeline.label.fields:
        if name in observed:
            message = f"the observation has a field '{name}' too"
            yield _problem(("label", "fields", name), "ambiguous-name", message, "rename the label's field")
    name, text = pipeline.label.name, pipeline.label.expression.strip()
    if not (name in observed or (name in pipeline.label.fields and text != name)):
        return
    known = [*pipeline.label.fields, *pipeline.observation.fields]
    path = ("label", "value", name)
    if text.isidentifier() and text not in known:  # a slip, such as {minutes: minuts}
        yield _problem(path, "unknown-name", f"'{text}' is not known here", suggest(text, known))
    else:
        yield _problem(path, "ambiguous-name", f"'{name}' is a field's name too", "rename the label's value")


def _fields(pipeline: "Pipeline") -> Iterator[Problem]:
    sections: tuple[tuple[str, Mapping[str, FieldSpec]], ...] = (
        ("observation", pipeline.observation.fields),
        ("label", pipeline.label.fields),
    )
    for section, fields in sections:
        for name, spec in fields.items():
            yield from _field((section, "fields", name), spec)


def _field(path: Path, spec: FieldSpec) -> Iterator[Problem]:
    for key in ("min", "max"):
        if getattr(spec, key) is not None and spec.type not in ("number", "integer"):
            message = f"a {spec.type} has no {key}"
            yield _problem((*path, key), "not-for-type", message, "take it out, or change the type")
    if spec.min is not None and spec.max is not None and spec.min > spec.max:
        yield _problem((*path, "max"), "max", f"max {spec.max:g} is below min {spec.min:g}", "swap them")
    yield from _text_rules(path, spec)
    yield from _actions(path, spec)
    if spec.values is None:
        return
    if spec.type != "category":
        yield _problem(
            (*path, "values"), "not-for-type", f"a {spec.type} has no values", "make it a category"
        )
    for position, value in enumerate(spec.values):
        if value in spec.values[:position]:
            message = f"{value!r} stands there twice"
            yield _problem((*path, "values", position), "duplicate", message, "keep one of them")


def _text_rules(path: Path, spec: FieldSpec) -> Iterator[Problem]:
    for key in ("pattern", "max_length"):
        if getattr(spec, key) is not None and spec.type not in ("category", "string"):
            message = f"a {spec.type} has no {key}"
            yield _problem((*path, key), "not-for-type", message, "take it out, or make it a string")
    if spec.pattern is not None:
        try:
            compile_pattern(spec.pattern)
        except PatternError as error:
            mend = "write a regular expression in RE2's syntax: no look-around and no back-references"
            yield _problem((*path, "pattern"), "pattern", str(error), mend)


_RULE_KEYS = {
    "min": "min",
    "max": "max",
    "allowed-values": "values",
    "pattern": "pattern",
    "max-length": "max_length",
}
"""The key that sets each of a field's rules; `type` and `required` always hold."""


def _actions(path: Path, spec: FieldSpec) -> Iterator[Problem]:
    for rule, action in (spec.actions or {}).items():
        place = (*path, "actions", rule)
        if rule in _RULE_KEYS and getattr(spec, _RULE_KEYS[rule]) is None:
            message = f"the field has no {_RULE_KEYS[rule]}"
            yield _problem(place, "goes-with", message, f"add {_RULE_KEYS[rule]}, or take this out")
        elif rule not in _RULE_KEYS and action == "warn":
            message = "the log holds only values of their declared type"
            mend = "refuse or quarantine" if rule == "type" else "declare the field nullable: true instead"
            yield _problem(place, "not-for-type", message, mend)


def _record_rules(pipeline: "Pipeline") -> Iterator[Problem]:
    sections: tuple[tuple[str, list[Rule] | None], ...] = (
        ("observation", pipeline.observation.rules),
        ("label", pipeline.label.rules),
    )
    for section, rules in sections:
        names = [rule.name for rule in rules or ()]
        for position, name in enumerate(names):
            if name in names[:position]:
                path = (section, "rules", position, "name")
                yield _problem(path, "duplicate", f"'{name}' stands there twice", "rename one of them")


def _lateness(pipeline: "Pipeline") -> Iterator[Problem]:
    observation = pipeline.observation
    if observation.when_late is not None and observation.allowed_lateness is None:
        mend = "add allowed_lateness: 7d, or take it out"
        message = "nothing is late without allowed_lateness"
        yield _problem(("observation", "when_late"), "goes-with", message, mend)


def _gates(pipeline: "Pipeline") -> Iterator[Problem]:
    allowed = METRICS[pipeline.label.type]
    for position, gate in enumerate(pipeline.gates):
        path: Path = ("gates", position)
        if gate.metric not in allowed:
            message = f"a {pipeline.label.type} label has no metric {gate.metric}"
            yield _problem((*path, "metric"), "allowed-values", message, f"use one of: {', '.join(allowed)}")
        yield from _gate(path, gate)
        yield from _slice(pipeline, gate.slice, (*path, "slice"))


def _slice(pipeline: "Pipeline", name: str | None, path: Path) -> Iterator[Problem]:
    """A feature's type is known to its compiler, which checks it."""
    fields = pipeline.observation.fields
    if name is None or name in pipeline.features:
        return
    categories = [field for field, spec in fields.items() if spec.type == "category"]
    mend = f"name a category feature, or a category field: {', '.join(categories) or 'there is none yet'}"
    if name not in fields:
        yield _problem(path, "unknown-field", f"there is no feature or field '{name}'", mend)
    elif fields[name].type != "category":
        yield _problem(path, "type", f"'{name}' is a {fields[name].type}; slices are by category", mend)


def _gate(path: Path, gate: Gate) -> Iterator[Problem]:
    rules = ("better_than", "at_most_ratio", "at_most", "at_least")
    given = [rule for rule in rules if getattr(gate, rule) is not None]
    if len(given) != 1:
        mend = f"keep one of: {', '.join(given)}" if given else f"add one of: {', '.join(rules)}"
        yield _problem(path, "one-rule", "a gate has exactly one rule", mend)
    if gate.confidence is not None and gate.better_than is None:
        mend = "add better_than: champion or prior"
        yield _problem((*path, "confidence"), "goes-with", "confidence goes with better_than", mend)
    if (gate.slice is None) != (gate.at_most_ratio is None):
        message = "slice and at_most_ratio go together"
        yield _problem(
            path, "goes-with", message, "write {metric: log_loss, slice: origin, at_most_ratio: 1.3}"
        )


def _service_levels(pipeline: "Pipeline") -> Iterator[Problem]:
    other = set(METRICS["binary"] + METRICS["number"]) - set(METRICS[pipeline.label.type])
    for name in sorted(other):
        if getattr(pipeline.monitor.slo, name) is not None:
            message = f"a {pipeline.label.type} label has no metric {name}"
            yield _problem(("monitor", "slo", name), "allowed-values", message, "take it out")


def _tests(pipeline: "Pipeline") -> Iterator[Problem]:
    for position, test in enumerate(pipeline.tests):
        path: Path = ("tests", position)
        named = [(*path, "vector", name) for name in test.vector]
        for observation, values in (test.vectors or {}).items():
            named += [(*path, "vectors", observation, name) for name in values]
        if not named:
            yield _problem(path, "required", "no value is expected", "add vector: {feature: value}")
        for place in named:
            if place[-1] not in pipeline.features:
                yield _problem(place, "unknown-field", f"there is no feature '{place[-1]}'", "take it out")


_RULES: tuple[Callable[["Pipeline"], Iterator[Problem]], ...] = (
    _partition_key,
    _times,
    _label_names,
    _fields,
    _record_rules,
    _lateness,
    _gates,
    _service_levels,
    quality_problems,
    _tests,
)
