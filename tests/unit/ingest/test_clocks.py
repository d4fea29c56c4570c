"""Partitions that are not equally far: catching up is no fault of the data."""

from datetime import timedelta

from everloop_ingest.domain.clocks import IDLE
from everloop_schemas.events import Tallied
from unit.ingest.data_gates_rig import BEGIN, Rig

ENOUGH_ROWS = "quality: {expect: [{expect: row_count, min: 50}]}"


def tell(
    rig: Rig, partition: int, hour: int, *, rows: int = 30, seconds: float = 0, announces: bool = False
) -> None:
    """Half of an hour's rows, all of one partition's; told `seconds` after the beginning."""
    start = BEGIN + timedelta(hours=hour)
    told = Tallied(
        partition=partition,
        window_start=start,
        known_at=start + timedelta(minutes=59),
        observations=rows,
        arrived=[rows, 0] if announces else None,
    )
    rig.book.add(told, rig.rules, BEGIN + timedelta(seconds=seconds))


def test_a_window_waits_for_the_partition_that_catches_up() -> None:
    """After an outage one partition is hours ahead: its keys alone are not the window."""
    rig = Rig(ENOUGH_ROWS)
    for partition in (0, 1):
        tell(rig, partition, 0)
    for hour in range(1, 9):
        tell(rig, 0, hour)
    for hour in range(1, 9):
        tell(rig, 1, hour)
    assert (rig.broken, rig.book.judged) == ({}, [])
    assert rig.book.standing.judged_until == BEGIN + timedelta(hours=7)


def test_nobody_waits_for_a_partition_that_is_idle() -> None:
    """Its keys may have gone for good."""
    rig = Rig(ENOUGH_ROWS)
    tell(rig, 1, 0)
    for hour in range(9):
        tell(rig, 0, hour, seconds=IDLE.total_seconds() + 1)
    assert set(rig.broken) == {1, 2, 3, 4, 5, 6}


def test_rows_of_a_window_that_come_late_are_judged_with_it() -> None:
    """An idle partition that comes back has the missing half."""
    rig = Rig(ENOUGH_ROWS)
    tell(rig, 1, 0)
    for hour in range(9):
        tell(rig, 0, hour, seconds=IDLE.total_seconds() + 1)
    tell(rig, 1, 3, seconds=IDLE.total_seconds() + 2)
    assert 3 not in rig.broken


def test_a_window_is_not_looked_at_early_while_partitions_are_apart() -> None:
    """A place whose rows are null by nature may be all that has come so far."""
    rig = Rig("quality: {expect: [{expect: not_null, field: heat, mostly: 0.8, on_broken: block}]}")
    start = BEGIN + timedelta(hours=2)
    for partition, minutes in ((1, 5), (0, 50)):
        told = Tallied(
            partition=partition,
            window_start=start,
            known_at=start + timedelta(minutes=minutes),
            observations=100,
            declared={"not_null(heat)": 0 if partition else 100},
            arrived=[100, 0],
        )
        rig.book.add(told, rig.rules, BEGIN)
    assert rig.held == []
    late = {"partition": 1, "known_at": start + timedelta(minutes=49), "arrived": [200, 0]}
    rig.book.add(told.model_copy(update={**late, "declared": {}}), rig.rules, BEGIN)
    assert rig.held == ["not_null(heat)"]
