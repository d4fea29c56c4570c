"""The judge as a stream processor drives it: what it publishes is all that it needs to go on."""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from aiokafka import ConsumerRecord
from everloop_ingest.application.judging import Judge
from everloop_ingest.application.tallying import noted
from everloop_kernel.stream import Output
from everloop_schemas.cloudevents import decode
from everloop_schemas.events import (
    Acceptance,
    DataArrived,
    QualityJudged,
    QualityMeasured,
    QualityNoted,
    Tallied,
)
from unit.ingest.data_gates_rig import BEGIN, Rig

RIG = Rig("quality: {expect: [{expect: not_null, field: heat, mostly: 0.9}]}")
NULLS = "not_null(heat)"


def judge() -> Judge:
    return Judge(lambda name: RIG.rules if name == "pumps" else None)


def note(
    hour: int, *, rows: int = 60, nulls: int = 0, partition: int = 0, arrived: bool = False
) -> QualityNoted:
    start = BEGIN + timedelta(hours=hour)
    told = Tallied(
        partition=partition,
        window_start=start,
        known_at=start + timedelta(minutes=30),
        observations=rows,
        declared={NULLS: nulls} if nulls else {},
        arrived=[rows, 0] if arrived else None,
    )
    return QualityNoted(pipeline="pumps", tallied=told)


def record(offset: int, output: Output) -> ConsumerRecord:
    headers = tuple(output.headers)
    return ConsumerRecord(output.topic, 0, offset, 0, 0, output.key, output.value, None, 1, 1, headers)


def records(events: Sequence[QualityNoted]) -> list[ConsumerRecord]:
    return [record(n, noted(event, str(n))) for n, event in enumerate(events)]


def run(found: Judge, events: Sequence[QualityNoted]) -> Sequence[Output]:
    step = found.derive(records(events))
    assert not step.dead
    found.apply(step.state)
    return step.outputs


def read(outputs: Sequence[Output], model: Any) -> list[Any]:
    return [decode(model, each.value, each.headers) for each in outputs if each.topic == model.topic]


def test_a_judge_that_was_killed_goes_on_exactly() -> None:
    """Whatever it had in memory, its own topic says the same: windows, verdicts and revisions."""
    chance = random.Random(3)
    events = [note(n // 3, nulls=chance.choice((0, 0, 5, 25)), partition=n % 2) for n in range(60)]
    whole = run(judge(), events)
    told: list[Output] = []
    for first in range(0, 60, 7):
        successor = judge()
        successor.restore([record(n, each) for n, each in enumerate(told)])
        successor.derive(records(events[first : first + 7]))  # a transaction that was not committed
        told += run(successor, events[first : first + 7])
    assert read(told, QualityJudged) == read(whole, QualityJudged) != []
    assert _newest(told) == _newest(whole)


def _newest(outputs: Sequence[Output]) -> dict[bytes | None, Any]:
    """What compaction leaves."""
    kept = {each.key: each for each in outputs if each.topic == QualityMeasured.topic}
    return {key: decode(QualityMeasured, each.value, each.headers) for key, each in kept.items()}


def test_new_data_is_announced_after_all_before_it_was_judged() -> None:
    """The trainer hears of new data and of its block in one event."""
    found = judge()
    (good,) = read(run(found, [note(0, arrived=True)]), DataArrived)
    assert (good.blocked, good.blocked_reason, good.quality_revision) == (False, None, 0)
    (bad,) = read(run(found, [note(1, nulls=30), note(3), note(4, arrived=True)]), DataArrived)
    assert bad.blocked
    assert bad.blocked_reason == "not_null(heat) is 0.5, expected at most 0.297 in 60 rows"
    assert bad.quality_revision == 1


def test_partitions_are_merged_before_they_are_judged() -> None:
    """One partition may hold the only site whose gauge is null by nature."""
    found = judge()
    halves = [note(0, rows=20, nulls=8, partition=0), note(0, rows=180, partition=1)]
    assert read(run(found, [*halves, note(3)]), QualityJudged) == []
    alone = [note(5, rows=20, nulls=20, partition=0), note(5, rows=20, partition=1)]
    (event,) = read(run(found, [*alone, note(8), note(8, partition=1)]), QualityJudged)
    assert (event.gates[0].figure, event.gates[0].rows) == (0.5, 40)


def test_a_partition_that_lags_behind_is_still_counted() -> None:
    """A replay reads partitions one after the other: the window's sum must be right in the end."""
    found = judge()
    run(found, [note(n) for n in range(6)])
    outputs = run(found, [note(1, nulls=40, partition=1)])
    (event,) = read(outputs, QualityJudged)
    assert (event.window_start, event.gates[0].rows) == (BEGIN + timedelta(hours=1), 120)


def test_a_decision_is_judged_in_its_turn() -> None:
    """It opens what is broken then, once."""
    found = judge()
    run(found, [note(0, nulls=60), note(3, nulls=60)])
    accepted = QualityNoted(pipeline="pumps", accepted=Acceptance(by="ana", reason="known", at=BEGIN))
    (event,) = read(run(found, [accepted, accepted]), QualityJudged)
    assert (event.verdict, event.decided_by, event.decision_reason, event.blocked) == (
        "accepted",
        "ana",
        "known",
        False,
    )
    assert found.standings["pumps"].waived == [NULLS]


def test_what_cannot_be_read_or_belongs_to_nobody_is_a_dead_letter() -> None:
    """One bad note must not stop all pipelines."""
    bad = ConsumerRecord("t", 0, 0, 0, 0, b"x", b"{", None, 1, 1, ())
    stranger = record(1, noted(QualityNoted(pipeline="nobody"), "1"))
    step = judge().derive([bad, stranger])
    assert [letter.reason_code for letter in step.dead][1] == "no-such-pipeline"
    assert len(step.dead) == 2
    assert step.outputs == []
