"""From a pipeline's expressions to what computes them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, cast

from everloop_schemas.pipeline import FieldSpec, Pipeline, Problem

from everloop_features.codegen import Plan, generate
from everloop_features.corrections import Contributions
from everloop_features.layout import plan
from everloop_features.nodes import Aggregate, Node, Value
from everloop_features.parser import Parser, parse
from everloop_features.pending import Horizon
from everloop_features.problems import ExpressionError
from everloop_features.scope import TIME, Scope, field_node, key_node
from everloop_features.state import State, StateReader

__all__ = ["Compiled", "FeatureType", "compile"]

FeatureType = Literal["number", "category", "boolean"]

LEAST_PENDING_US = 7 * 86_400 * 1_000_000

MOST_REMEMBERED = 50_000
"""Offsets of a log partition for which records are remembered, where no label needs its observation."""


class Compiled:
    """A pipeline's features, ready to be computed.

    `names` and `types` are in the order of every vector: by name, so that a definition means the same after
    any store or digest that does not keep the order of a mapping. Text fields give categories.
    """

    def __init__(
        self, names: tuple[str, ...], features: tuple[Node, ...], label: Node, pending_us: int
    ) -> None:
        aggregates = [n.value for root in features for n in root.walk() if n.op == "aggregate"]
        self.names = names
        self.types = tuple(cast("FeatureType", node.type) for node in features)
        self.layouts = plan(aggregates)
        self.pending_us = pending_us
        self.joins_labels = any(layout.reads_observation for layout in self.layouts)
        self.over_labels = any(one.over == "labels" for one in self.layouts)
        self.keeps_observations = any(one.over == "observations" for one in self.layouts) or self.joins_labels
        self.functions = generate(self._plan(features, label))
        self.contributions = Contributions(self.functions, self.layouts)
        self.vector: Callable[[Mapping[str, Any], int, StateReader], list[Value]] = self.functions.vector
        """(observation's fields, event time in µs, state) → values; pure, total over field values."""

    @property
    def needs_state(self) -> bool:
        """Whether any feature looks at earlier records."""
        return bool(self.layouts)

    @property
    def state_keys(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(`observations` or `labels`, fields of the key) of each group of aggregates."""
        return tuple((layout.over, layout.names) for layout in self.layouts)

    def label_value(self, fields: Mapping[str, Any]) -> float | None:
        """The label's value from a label's fields; true is 1.0. None when a field it needs is null."""
        value = self.functions.label(fields)
        return None if value is None else float(value)

    def horizon(self, known_clock_us: int, position: int) -> Horizon:
        """What is remembered at a point of the log, to be joined or taken back."""
        first = 0 if self.joins_labels else position - MOST_REMEMBERED
        return Horizon(known_clock_us - self.pending_us, first)

    def new_state(self, version: int) -> State:
        """Empty state for a pipeline version, whose number stands in front of every state key."""
        return State(self, version)

    def _plan(self, features: tuple[Node, ...], label: Node) -> Plan:
        needed: dict[Node, None] = {}
        for layout in self.layouts:
            for root in (*layout.by, *layout.operands):
                needed.update(dict.fromkeys(node for node in root.walk() if node.op == "field"))
        kept = tuple(node for node in needed if node.value.origin == "observation")
        told = tuple(node for node in needed if node.value.origin == "label")
        return Plan(features, label, self.layouts, kept, told)


def compile(pipeline: Pipeline) -> Compiled | list[Problem]:  # noqa: A001  # like re.compile, used with its module
    """Check every expression of a pipeline and compile them; all problems are found at once.

    Example:
        >>> from everloop_schemas.pipeline import load
        >>> compiled = compile(load(TEXT))                       # doctest: +SKIP
        >>> compiled.vector({"distance": 0.0}, 0, compiled.new_state(version=1))   # doctest: +SKIP
        [0.0]
    """
    return _Compilation(pipeline).run()


class _Compilation:
    """One run over a pipeline's expressions."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.problems: list[Problem] = []

    def run(self) -> Compiled | list[Problem]:
        label = self._checked(f"label.value.{self.pipeline.label.name}", self._label_node)
        observations = self._observation_scope()
        parser = Parser(observations, observations, self._joined_scope(label))
        features = {
            name: self._checked(f"features.{name}", partial(self._feature, parser, text))
            for name, text in self._feature_texts().items()
        }
        self._check_slices(features)
        if self.problems or label is None:
            return self.problems
        nodes = tuple(node for node in features.values() if node is not None)
        expected = self.pipeline.label.expected_after
        pending_us = max(LEAST_PENDING_US, 4 * round(expected.total_seconds() * 1_000_000))
        return Compiled(tuple(features), nodes, label, pending_us)

    def _check_slices(self, features: Mapping[str, Node | None]) -> None:
        """Gates cut the rows by the values of a category; the types of fields are checked with the file."""
        for position, gate in enumerate(self.pipeline.gates):
            node = features.get(gate.slice) if gate.slice in self.pipeline.features else None
            if node is not None and node.type != "category":
                message = f"'{gate.slice}' is a {node.type}; slices are by category"
                mend = "name a category feature or a category field"
                self.problems.append(Problem("", 0, f"gates[{position}].slice", "type", message, mend))

    def _checked(self, field: str, check: Callable[[], Node]) -> Node | None:
        try:
            return check()
        except ExpressionError as error:
            self.problems.append(Problem("", 0, field, error.rule, error.message, error.mend))
            return None

    def _feature_texts(self) -> dict[str, str]:
        plain = ("category", "number", "integer", "boolean")
        fields = {name: name for name, spec in self.pipeline.observation.fields.items() if spec.type in plain}
        return dict(sorted((self.pipeline.features or fields).items()))

    def _feature(self, parser: Parser, text: str) -> Node:
        node = parser.check(parse(text))
        if node.type == "timestamp":
            raise ExpressionError(
                "type", "a feature cannot be a timestamp", "use hour(…), weekday(…), month(…) or age(…)"
            )
        for below in node.walk():
            if below.op == "aggregate":
                self._check_partition_key(below.value)
        return node

    def _check_partition_key(self, aggregate: Aggregate) -> None:
        by = {node.value.name for node in aggregate.by}
        missing = [name for name in self.pipeline.partition_by if name not in by]
        if self.pipeline.partitions > 1 and missing:
            raise ExpressionError(
                "partition-key",
                f"by={sorted(by)} lacks {missing} of the partition key: no partition holds all its records",
                f"add {missing} to by, or set partitions: 1",
            )

    def _label_node(self) -> Node:
        node = Parser(self._label_scope()).check(parse(self.pipeline.label.expression))
        expected = "boolean" if self.pipeline.label.type == "binary" else "number"
        if node.type != expected:
            kind = self.pipeline.label.type
            raise ExpressionError("type", f"a {kind} label's value is a {node.type}", f"make it a {expected}")
        return node

    def _observation_scope(self) -> Scope:
        fields = self.pipeline.observation.fields
        names = {name: field_node("observation", name, spec.type, spec.unit) for name, spec in fields.items()}
        times = {"event_time": TIME, self.pipeline.observation.event_time: TIME}
        return Scope(
            {**times, **names}, {name: _key("observation", name, spec) for name, spec in fields.items()}
        )

    def _label_fields(self) -> dict[str, FieldSpec]:
        observed = self.pipeline.observation.fields
        keys = {name: observed[name] for name in self.pipeline.partition_by if name in observed}
        return {**keys, **self.pipeline.label.fields}

    def _label_scope(self) -> Scope:
        names = {
            name: field_node("label", name, spec.type, spec.unit)
            for name, spec in self._label_fields().items()
        }
        return Scope({"event_time": TIME, **names})

    def _joined_scope(self, label: Node | None) -> Scope:
        """What an aggregate over labels sees: label, its value, and the observation it belongs to."""
        observed = self.pipeline.observation.fields
        names = {
            name: field_node("observation", name, spec.type, spec.unit) for name, spec in observed.items()
        }
        keys = {
            name: _key("label" if name in self.pipeline.partition_by else "observation", name, spec)
            for name, spec in observed.items()
        }
        value = label or _unchecked_label(self.pipeline.label.type)
        return Scope({**names, **self._label_scope().names, self.pipeline.label.name: value}, keys)


def _unchecked_label(kind: str) -> Node:
    """Stands for a broken label, so that its problem is reported once."""
    return (
        Node("constant", "boolean", value=False)
        if kind == "binary"
        else Node("constant", "number", value=0.0)
    )


def _key(origin: Literal["observation", "label"], name: str, spec: FieldSpec) -> Node | ExpressionError:
    try:
        return key_node(origin, name, spec.type)
    except ExpressionError as error:
        return error.with_traceback(None)  # it is kept; its frames would keep every caller's variables
