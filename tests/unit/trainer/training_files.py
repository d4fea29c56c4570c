"""A training job on disk, as the trainer leaves it for its process."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
from everloop_features import compile as compile_pipeline
from everloop_schemas.pipeline import load, to_definition
from everloop_trainer.adapters.segment_files import write_segment
from everloop_trainer.domain.job import Job, Outcome, SegmentFile
from everloop_trainer.train import do_job

START = datetime(2013, 1, 1, tzinfo=UTC)
START_US = int(START.timestamp()) * 1_000_000
STEP_US = 360_000_000
FILE = """
pipeline: flights
partition_by: [origin]
observation:
  event_time: at
  fields:
    origin: {{type: category}}
    carrier: {{type: category, nullable: true}}
    wind: {{type: number, nullable: true}}
    wet: {{type: boolean}}
label:
  type: {type}
  fields: {{delay: {{type: number, nullable: true}}}}
  value: {{outcome: {value}}}
features: {{carrier: carrier, wind: wind, wet: wet}}
training:
  model: {{trees: 20, leaves: 7, min_data_in_leaf: 10}}
  refit: {refit}
  minimum_rows: 100
"""


def definition(kind="binary", *, refit="true"):
    value = "delay > 0" if kind == "binary" else "delay"
    pipeline = load(FILE.format(type=kind, value=value, refit=refit), "test.yaml")
    assert not isinstance(pipeline, list), [str(problem) for problem in pipeline]
    assert not isinstance(compile_pipeline(pipeline), list)
    return to_definition(pipeline)


def write(root, rows, *, version=1, seed=0, delay=None):
    """Segments of `rows` flights in two partitions, each observation followed by its label."""
    random = np.random.default_rng(seed)
    log = {0: [], 1: []}
    vectors = {0: [], 1: []}
    for i in range(rows):
        part, at = i % 2, START_US + i * STEP_US
        origin, wind = ("EWR", "JFK")[part], None if i % 11 == 0 else float(random.normal())
        carrier, wet = None if i % 13 == 0 else "ABCD"[i % 4], bool(i % 3 == 0)
        value = delay if delay is not None else (wind or 0.0) + wet + float(random.normal())
        offset = len(log[part])
        fields = {"origin": origin, "carrier": carrier, "wind": wind, "wet": wet}
        log[part].append((offset, False, f"f{i}", at, at, json.dumps(fields)))
        told = json.dumps({"origin": origin, "delay": value})
        log[part].append((offset + 1, True, f"f{i}", at + STEP_US, at + STEP_US, told))
        vectors[part].append((offset, False, f"f{i}", at, at, [carrier, wind, wet]))
    features = [("carrier", "category"), ("wind", "number"), ("wet", "boolean")]
    piles = [(("records", 0, p), r, None) for p, r in log.items()]
    piles += [(("vectors", version, p), r, features) for p, r in vectors.items()]
    return [write_pile(root, *pile) for pile in piles]


def write_pile(root, pile, rows, features):
    """One segment: `pile` is its kind, version and partition."""
    kind, version, partition = pile
    first, last = rows[0][0], rows[-1][0]
    file = f"segments/{kind}-{version}-{partition}-{first}-{last}.parquet"
    sha256, _ = write_segment(root / file, rows, features)
    return SegmentFile(
        kind=kind, version=version, partition=partition, first=first, last=last, file=file, sha256=sha256
    )


def job(segments, rows, **changes):
    made = {
        "run_id": "run-1",
        "pipeline": "flights",
        "pipeline_version": 1,
        "pipeline_sha256": "a" * 64,
        "definition": definition(),
        "cut": {0: rows, 1: rows},
        "pipeline_time": START + timedelta(microseconds=rows * STEP_US),
        "segments": segments,
    }
    return Job(**{**made, **changes})


def child_command(parent, directory, root):
    """How the trainer starts a training."""
    child = [sys.executable, "-m", "everloop_trainer.child", "train"]
    return [*child, str(parent), str(directory), str(root)]


def train(root, work, name="job", *, process=False):
    """Do a job, here or in a process of its own; its outcome and its artifact."""
    directory = root / name
    directory.mkdir()
    (directory / "job.json").write_text(work.model_dump_json())
    if process:
        command = child_command(os.getpid(), directory, root)
        subprocess.run(command, check=True)
    else:
        do_job(directory, root)
    artifact = directory / "artifact.tar"
    outcome = Outcome.model_validate_json((directory / "outcome.json").read_text())
    return outcome, artifact.read_bytes() if artifact.exists() else None
