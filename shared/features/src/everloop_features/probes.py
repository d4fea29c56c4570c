"""The aggregates of a pipeline as features of their own, to look into a vector with the evaluator itself.

Nothing here knows how an aggregate is computed: what a record adds to it is what it comes to for a log of
that record alone.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from everloop_schemas.pipeline import Pipeline

from everloop_features.aggregate_calls import COMMON_WORDS, is_aggregate
from everloop_features.compiler import Compiled, compile  # noqa: A004  # like re.compile

__all__ = ["Probe", "Probes", "probe"]


@dataclass(frozen=True, slots=True)
class Probe:
    """One aggregate call: its text, what it groups by, and the probing features' names.

    `counter` names the feature that counts its records; None where the language cannot count them. `most` is
    set where the aggregate is over so many newest records.
    """

    expression: str
    over_labels: bool
    by: tuple[str, ...]
    most: int | None
    value: str
    counter: str | None


@dataclass(frozen=True, slots=True)
class Probes:
    """A pipeline's features and the probes beside them, compiled; `used` are the aggregates by feature."""

    compiled: Compiled
    expressions: Mapping[str, str]
    used: Mapping[str, tuple[Probe, ...]]

    @property
    def all(self) -> tuple[Probe, ...]:
        """Each aggregate once."""
        return tuple(dict.fromkeys(probe for probes in self.used.values() for probe in probes))


def probe(pipeline: Pipeline) -> Probes:
    """Put every aggregate of a pipeline that compiles beside its features."""
    calls = {name: tuple(_aggregates(text)) for name, text in pipeline.features.items()}
    numbered = dict.fromkeys(text for found in calls.values() for text in found)
    probes = {text: _probe(pipeline, text, number) for number, text in enumerate(numbered)}
    texts = {**pipeline.features, **{one.value: one.expression for one in probes.values()}}
    for one in probes.values():
        if one.counter is not None and (count := _count_text(one.expression)) is not None:
            texts[one.counter] = count
    compiled = compile(pipeline.model_copy(update={"features": texts}))
    if isinstance(compiled, list):
        raise ValueError("; ".join(map(str, compiled)))  # noqa: TRY004  # not its type: what it lists
    used = {name: tuple(probes[text] for text in found) for name, found in calls.items()}
    return Probes(compiled, pipeline.features, used)


def _aggregates(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text.strip(), mode="eval")):
        match node:
            case ast.Call(func=ast.Name(id=name)) if is_aggregate(node, name):
                yield ast.unparse(node)


def _probe(pipeline: Pipeline, text: str, number: int) -> Probe:
    call = _call(text)
    words = {word.arg: word.value for word in call.keywords}
    over, by = words.get("over"), words.get("by")
    value, counter = f"explained_{number}_value", f"explained_{number}_records"
    count = _count_text(text)
    alone = {value: text, counter: count or text}
    countable = count is not None and isinstance(
        compile(pipeline.model_copy(update={"features": alone})), Compiled
    )
    return Probe(
        text,
        isinstance(over, ast.Name) and over.id == "labels",
        tuple(node.id for node in ast.walk(by) if isinstance(node, ast.Name)) if by else (),
        _whole(words.get("last_n")),
        value,
        counter if countable else None,
    )


def _whole(constant: ast.expr | None) -> int | None:
    found = constant.value if isinstance(constant, ast.Constant) else None
    return found if isinstance(found, int) else None


def _count_text(text: str) -> str | None:
    """The same records, counted. None where a second operand decides as well which they are.

    In a window an operand's null counts nothing, as in the aggregate; the newest n are any records.
    """
    call = _call(text)
    words = [word for word in call.keywords if word.arg in COMMON_WORDS]
    operands = call.args if not any(word.arg == "last_n" for word in words) else []
    if any(not isinstance(operand, ast.Constant) for operand in operands[1:]):
        return None
    return ast.unparse(ast.Call(ast.Name("count"), operands[:1], words))


def _call(text: str) -> ast.Call:
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    return call
