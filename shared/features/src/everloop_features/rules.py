"""Rules over several fields of one record, such as `arrived >= departed`: checked at `apply`, used by ingest.

They are expressions of the feature language over the record alone, compiled by the one evaluator: a rule is a
feature of a pipeline made of the record's fields.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from everloop_schemas.pipeline import FieldSpec, Label, Observation, Pipeline, Problem, Rule

from everloop_features.compiler import Compiled, compile  # noqa: A004  # like re.compile
from everloop_features.state import State

__all__ = ["RecordRules", "RuleSets", "compile_rules"]

RuleSets = Mapping[Literal["observation", "label"], "RecordRules"]


@dataclass(frozen=True, slots=True)
class RecordRules:
    """The rules of one kind of record; `uses` names, for each rule, the fields that it looks at."""

    rules: Sequence[Rule]
    uses: Sequence[Sequence[str]]
    compiled: Compiled
    state: State

    def broken(self, fields: Mapping[str, Any], event_time_us: int) -> list[int]:
        """The positions of the rules that a record breaks: null (a field that it needs is null) passes."""
        values = self.compiled.vector(fields, event_time_us, self.state)
        return [position for position, value in enumerate(values) if value is False]


def compile_rules(pipeline: Pipeline) -> RuleSets | list[Problem]:
    """Check and compile the rules of a pipeline's observations and labels; all problems are found at once.

    Kinds without rules are left out.
    """
    observed = pipeline.observation
    keys = {name: observed.fields[name] for name in pipeline.partition_by}
    found: dict[Literal["observation", "label"], RecordRules] = {}
    problems: list[Problem] = []
    for kind, rules, event_time, fields in (
        ("observation", observed.rules, observed.event_time, observed.fields),
        ("label", pipeline.label.rules, "event_time", {**keys, **pipeline.label.fields}),
    ):
        record = _Record(pipeline, event_time, fields)
        broken = [
            problem for at, rule in enumerate(rules or ()) for problem in record.problems(kind, at, rule)
        ]
        problems += broken
        if rules and not broken:
            found["label" if kind == "label" else "observation"] = record.compiled(rules)
    return problems or found


@dataclass(frozen=True, slots=True)
class _Record:
    """What the rules of one kind may speak of."""

    pipeline: Pipeline
    event_time: str
    fields: Mapping[str, FieldSpec]

    def compiled(self, rules: Sequence[Rule]) -> RecordRules:
        """Rules that have no problems."""
        compiled = self._compile(rules)
        assert isinstance(compiled, Compiled)
        names = {*self.fields, self.event_time}
        uses = [sorted(names & _names(rule.expr)) for rule in rules]
        return RecordRules(rules, uses, compiled, compiled.new_state(version=1))

    def problems(self, kind: str, position: int, rule: Rule) -> Iterable[Problem]:
        """What is wrong with one rule."""
        field = f"{kind}.rules[{position}].expr"
        compiled = self._compile([rule])
        if isinstance(compiled, list):
            yield from (replace(problem, field=field) for problem in compiled)
        elif compiled.needs_state:
            mend = "use the fields of the record alone"
            yield Problem("", 0, field, "nested-aggregate", "a rule looks at one record", mend)
        elif compiled.types != ("boolean",):
            message = f"the rule {rule.name} is a {compiled.types[0]}"
            yield Problem("", 0, field, "type", message, "make it a comparison, such as arrived >= departed")

    def _compile(self, rules: Sequence[Rule]) -> Compiled | list[Problem]:
        """The rules as features, which are computed in the order of their names."""
        features = {f"rule_{position:03}": rule.expr for position, rule in enumerate(rules)}
        observation = Observation.model_construct(event_time=self.event_time, fields=dict(self.fields))
        label = Label.model_construct(
            type="binary",
            fields={"known": FieldSpec(type="boolean")},
            value={"rule_label": "known"},
            expected_after=self.pipeline.label.expected_after,
        )
        changes = {"observation": observation, "label": label, "features": features}
        return compile(self.pipeline.model_copy(update=changes))


def _names(expression: str) -> set[str]:
    tree = ast.parse(expression.replace("\n", " ").strip(), mode="eval")
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
