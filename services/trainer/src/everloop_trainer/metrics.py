"""The trainer's own metrics, with their kind and meaning; labels never hold ids."""

from typing import Final

from prometheus_client import Counter, Histogram

__all__ = ["CRASHES", "ENDED_RUNS", "OPENED_RUNS", "RUN_SECONDS", "SEGMENTS", "SEGMENT_ROWS"]

OPENED_RUNS: Final = Counter(
    "everloop_trainer_opened_runs_total", "Runs that a trigger started", ["pipeline", "trigger"]
)
ENDED_RUNS: Final = Counter(
    "everloop_trainer_ended_runs_total",
    "Runs that ended: trained or failed",
    ["pipeline", "outcome"],
)
RUN_SECONDS: Final = Histogram(
    "everloop_trainer_run_seconds",
    "Seconds of work on a run, from claim to conclusion",
    ["pipeline"],
    buckets=(1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800),
)
CRASHES: Final = Counter(
    "everloop_trainer_crashes_total", "Training processes that died without an outcome", ["pipeline"]
)
SEGMENTS: Final = Counter("everloop_trainer_segments_total", "Segments written", ["pipeline", "kind"])
SEGMENT_ROWS: Final = Counter("everloop_trainer_segment_rows_total", "Rows in them", ["pipeline", "kind"])
