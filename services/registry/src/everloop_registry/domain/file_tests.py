"""The tests that stand in a pipeline file: records in, the last observation's vector out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from everloop_features import Compiled, Record, Value, replay
from everloop_schemas.pipeline import Pipeline, PipelineTest, Problem

__all__ = ["failures"]

_RELATIVE_TOLERANCE = 1e-9
"""People write 0.3333333333, not the last bit of a float."""

Fields = Mapping[str, Any]


class _UnreadableError(Exception):
    """A record of a test that no producer could send: `where` is its field, `mend` what to write instead."""

    def __init__(self, where: str, message: str, mend: str) -> None:
        super().__init__(message)
        self.where = where
        self.mend = mend


def failures(pipeline: Pipeline, compiled: Compiled) -> list[Problem]:
    """Run every test of the file; what came out otherwise than expected, one problem a feature."""
    return [
        problem
        for position, test in enumerate(pipeline.tests)
        for problem in _run(pipeline, compiled, test, f"tests[{position}]")
    ]


def _run(pipeline: Pipeline, compiled: Compiled, test: PipelineTest, path: str) -> Iterator[Problem]:
    try:
        records = [_record(pipeline, fields, number) for number, fields in enumerate(test.records)]
    except _UnreadableError as error:
        yield Problem("", 0, f"{path}.{error.where}", "test-record", str(error), error.mend)
        return
    vectors = list(replay(compiled, enumerate(records)))
    if not vectors:
        mend = "add the observation whose vector is expected"
        yield Problem("", 0, f"{path}.records", "test-record", "no record is an observation", mend)
        return
    got = dict(zip(compiled.names, vectors[-1].values, strict=True))
    for name, expected in test.vector.items():
        if not _same(got.get(name), expected):
            message = f"test {test.name!r}: {name} is {got.get(name)!r}, not {expected!r}"
            mend = "correct the feature's expression or the expected value"
            yield Problem("", 0, f"{path}.vector.{name}", "test", message, mend)


def _record(pipeline: Pipeline, sent: Fields, number: int) -> Record:
    """A record as ingest would accept it; `known_at` is the event's time where the test gives none."""
    where = f"records[{number}]"
    own = pipeline.observation.event_time
    is_observation = own in sent and not (own == "event_time" and set(pipeline.label.fields) <= set(sent))
    time_name = own if is_observation else "event_time"
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


def _same(got: Value, expected: object) -> bool:
    if isinstance(got, bool) or isinstance(expected, bool) or not isinstance(expected, int | float):
        return got == expected and isinstance(got, bool) == isinstance(expected, bool)
    return isinstance(got, int | float) and math.isclose(
        got, expected, rel_tol=_RELATIVE_TOLERANCE, abs_tol=_RELATIVE_TOLERANCE
    )
