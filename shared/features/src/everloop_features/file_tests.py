"""The tests that stand in a pipeline file: records in, vectors out, without any service."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeGuard

from everloop_schemas.pipeline import Pipeline, PipelineTest, Problem

from everloop_features.compiler import Compiled
from everloop_features.nodes import Value
from everloop_features.records import Record
from everloop_features.replay import replay

__all__ = ["Difference", "Outcome", "failures", "run_tests"]

Fields = Mapping[str, Any]
Vectors = dict[str, Mapping[str, Value]]
"""Values by feature, by observation's id."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not what a test expects; `path` is the place of the expected value in the file."""

    path: str
    observation: str
    feature: str
    expected: object
    got: Value
    tolerance: float

    def __str__(self) -> str:
        wanted = f"{self.expected!r}" + (f" ± {self.tolerance!r}" if self.tolerance else "")
        text = f"{self.observation}.{self.feature}: expected {wanted}, got {self.got!r}"
        if _is_number(self.expected) and _is_number(self.got):
            text += f" (off by {abs(self.got - self.expected):.3g})"
        return text


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one test: `problems` are those of its records, and nothing is compared then."""

    path: str
    name: str
    compared: int = 0
    differences: tuple[Difference, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every expected value came out."""
        return not self.differences and not self.problems


class _UnreadableError(Exception):
    """A record of a test that no producer could send: `where` is its field, `mend` what to write instead."""

    def __init__(self, where: str, message: str, mend: str) -> None:
        super().__init__(message)
        self.where = where
        self.mend = mend


def run_tests(pipeline: Pipeline, compiled: Compiled) -> list[Outcome]:
    """Run every test of the file with the evaluator that the stream and serving use."""
    return [
        _run(pipeline, compiled, test, f"tests[{position}]") for position, test in enumerate(pipeline.tests)
    ]


def failures(outcomes: Iterable[Outcome]) -> list[Problem]:
    """What failed, as problems of the file: one a value, one a record that cannot be read."""
    found: list[Problem] = []
    mend = "correct the feature's expression or the expected value"
    for outcome in outcomes:
        found += outcome.problems
        for difference in outcome.differences:
            message = f"test {outcome.name!r}: {difference}"
            found.append(Problem("", 0, difference.path, "test", message, mend))
    return found


def _run(pipeline: Pipeline, compiled: Compiled, test: PipelineTest, path: str) -> Outcome:
    try:
        vectors = _vectors(pipeline, compiled, test)
        expected = list(_expected(test, vectors))
    except _UnreadableError as error:
        problem = Problem("", 0, f"{path}.{error.where}", "test-record", str(error), error.mend)
        return Outcome(path, test.name, problems=(problem,))
    tolerance = test.tolerance or 0.0
    differences = [
        Difference(f"{path}.{where}", observation, feature, wanted, got, tolerance)
        for where, observation, feature, wanted in expected
        if not _same(got := vectors[observation][feature], wanted, tolerance)
    ]
    return Outcome(path, test.name, len(expected), tuple(differences))


def _vectors(pipeline: Pipeline, compiled: Compiled, test: PipelineTest) -> Vectors:
    """The vectors of the test's observations in log order; the newest where an id comes twice."""
    records = [_record(pipeline, sent, number) for number, sent in enumerate(test.records)]
    found: Vectors = {}
    for vector in replay(compiled, enumerate(records)):
        found.pop(vector.id, None)
        found[vector.id] = dict(zip(compiled.names, vector.values, strict=True))
    if not found:
        mend = "add the observation whose vector is expected"
        raise _UnreadableError("records", "no record is an observation", mend)
    return found


def _expected(test: PipelineTest, vectors: Vectors) -> Iterator[tuple[str, str, str, object]]:
    """Each expected value: its place in the test, the observation, the feature, the value."""
    last = next(reversed(vectors))
    for feature, value in test.vector.items():
        yield f"vector.{feature}", last, feature, value
    for observation, values in (test.vectors or {}).items():
        if observation not in vectors:
            mend = f"name one of: {', '.join(vectors)}"
            raise _UnreadableError(f"vectors.{observation}", "no observation has this id", mend)
        for feature, value in values.items():
            yield f"vectors.{observation}.{feature}", observation, feature, value


def _record(pipeline: Pipeline, sent: Fields, number: int) -> Record:
    """A record as ingest would accept it; `known_at` is the event's time where the test gives none."""
    where = f"records[{number}]"
    is_observation = _is_observation(pipeline, sent)
    time_name = pipeline.observation.event_time if is_observation else "event_time"
    declared = _declared(pipeline, is_observation=is_observation)
    unknown = sorted(set(sent) - set(declared) - {"id", time_name, "known_at"})
    if unknown:
        kind = "observation" if is_observation else "label"
        raise _UnreadableError(
            f"{where}.{unknown[0]}", f"no field of the {kind}", f"use: {', '.join(declared)}"
        )
    event_time = _time(sent, time_name, where)
    return Record(
        kind="observation" if is_observation else "label",
        id=str(sent.get("id", number)),
        event_time=event_time,
        known_at=_time(sent, "known_at", where) if "known_at" in sent else event_time,
        fields={name: sent.get(name) for name in declared},
    )


def _is_observation(pipeline: Pipeline, sent: Fields) -> bool:
    """Tell by the name of the time; where both kinds use the same, a label has a field of the label."""
    own = pipeline.observation.event_time
    return own in sent and not (own == "event_time" and set(pipeline.label.fields) & set(sent))


def _declared(pipeline: Pipeline, *, is_observation: bool) -> Sequence[str]:
    if is_observation:
        return list(pipeline.observation.fields)
    return list(dict.fromkeys([*pipeline.partition_by, *pipeline.label.fields]))


def _time(sent: Fields, name: str, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(str(sent[name]))
    except (KeyError, ValueError):
        time = None
    if time is None or time.tzinfo is None:
        mend = f"write {name}: '2013-01-01T05:15:00Z'"
        raise _UnreadableError(f"{where}.{name}", "is no time with a time zone", mend) from None
    return time


def _same(got: Value, expected: object, tolerance: float) -> bool:
    """Equal, and of one kind: 1 is 1.0, but no truth value. A tolerance counts for numbers alone."""
    if _is_number(got) and _is_number(expected):
        return got == expected or abs(got - expected) <= tolerance
    return got == expected and isinstance(got, bool) == isinstance(expected, bool)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
