"""What a training publishes about its data."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from everloop_schemas.pipeline import Pipeline, load
from everloop_trainer.application.profiling import data_profile
from everloop_trainer.domain.job import Job
from everloop_trainer.domain.records import Records

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
FILE = """
pipeline: pumps
partition_by: [site]
observation:
  event_time: at
  fields:
    site: {type: category}
    heat: {type: number, nullable: true}
    running: {type: boolean}
label:
  type: binary
  fields: {hours: {type: number, nullable: true}}
  value: {fails: hours < 5}
"""


def records(rows: list[dict], minutes: int = 1) -> Records:
    times = np.arange(len(rows)) * minutes * 60_000_000 + int(BEGIN.timestamp()) * 1_000_000
    return Records(
        [str(n) for n in range(len(rows))],
        np.zeros(len(rows), dtype=np.int64),
        np.arange(len(rows), dtype=np.int64),
        times,
        times + 5_000_000,
        [json.dumps(row) for row in rows],
    )


def job(rows: int) -> Job:
    cut = {0: rows}
    time = BEGIN + timedelta(days=30)
    return Job(
        run_id="r", pipeline="pumps", pipeline_version=1, pipeline_sha256="0" * 64, definition={}, cut=cut,
        pipeline_time=time,
    )  # fmt: skip


def pipeline() -> Pipeline:
    found = load(FILE)
    assert isinstance(found, Pipeline), found
    return found


def test_a_profile_says_what_the_training_data_was_like() -> None:
    """It is all that ingest knows of it: ranges, shares, and how these vary from hour to hour."""
    rows = [
        {
            "site": "north" if n % 4 else "south",
            "heat": None if n % 10 == 0 else float(n % 100),
            "running": n % 2 == 0,
        }
        for n in range(6000)
    ]
    beyond = [{"site": "moon", "heat": 1e9, "running": False}]
    found = data_profile(
        job(6000),
        pipeline(),
        records(rows + beyond),
        records([{"hours": 1.0}]),
        sha256="a" * 64,
        read=json.loads,
    )
    assert found is not None
    assert (found.observations, found.labels, found.windows, found.days, found.late_seconds) == (
        6000,
        1,
        100,
        5,
        5.0,
    )
    heat, site = found.fields["heat"], found.fields["site"]
    assert (heat.low, heat.high, heat.maximum) == (1.0, 99.0, 99.0)
    assert heat.measures["null"].window.share == pytest.approx(0.1, abs=0.001)
    assert site.known == ["north", "south"]
    assert set(site.measures) == {"is:north", "is:south", "unseen"}
    assert site.measures["unseen"].window.share < 0.001
    assert found.fields["running"].measures["true"].day.share == pytest.approx(0.5, abs=0.001)
    assert found.fields["hours"].kind == "label"


def test_hours_that_differ_are_told_from_chance() -> None:
    """A column that is null in whole hours must not alarm at the next such hour."""
    even = [{"site": "a", "heat": None if n % 20 == 0 else 1.0, "running": True} for n in range(6000)]
    whole = [{"site": "a", "heat": None if n // 60 % 20 == 0 else 1.0, "running": True} for n in range(6000)]
    shares = [
        data_profile(job(6000), pipeline(), records(rows), records([]), sha256="a" * 64, read=json.loads)
        for rows in (even, whole)
    ]
    low, high = (found.fields["heat"].measures["null"].window for found in shares if found is not None)
    assert low.share == pytest.approx(high.share, abs=1e-3)
    assert low.correlation < 0.02
    assert high.correlation > 0.9


def test_no_observation_gives_no_profile() -> None:
    """There is nothing to hold new data against."""
    assert (
        data_profile(job(0), pipeline(), records([]), records([]), sha256="a" * 64, read=json.loads) is None
    )
