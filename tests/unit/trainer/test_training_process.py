"""The training process on segments of its own: what it makes, that it makes it again, and how it refuses."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from everloop_features import compile as compile_pipeline
from everloop_schemas.events import UnseenRows
from everloop_schemas.pipeline import from_definition
from everloop_trainer.adapters.log_files import replayed
from everloop_trainer.adapters.log_format import append
from everloop_trainer.domain.artifact import unpack_model
from everloop_trainer.domain.comparison import MINIMUM_COMPARED_ROWS
from everloop_trainer.domain.job import Champion, LogFile
from everloop_trainer.domain.retracted import RETRACTED

sys.path.insert(0, str(Path(__file__).parent))
from training_files import START_US, STEP_US, child_command, definition, job, train, write, write_pile

ROWS = 1200


def test_the_same_dataset_gives_the_same_bytes_in_another_process(tmp_path):
    """`verify` compares digests: one bit of difference and every audit fails."""
    segments = write(tmp_path, ROWS)
    first, artifact = train(tmp_path, job(segments, ROWS), "one")
    second, again = train(tmp_path, job(list(reversed(segments)), ROWS), "two", process=True)
    assert artifact == again
    assert first.trained.dataset == second.trained.dataset
    assert first.trained.metrics == second.trained.metrics
    assert first.trained.artifact_sha256 == hashlib.sha256(artifact).hexdigest()


def test_a_retraction_among_the_segments_takes_its_row_out(tmp_path):
    """What is withdrawn below the cut is not learnt from; below an earlier cut it still is."""
    segments = write(tmp_path, ROWS)
    known = START_US + 2 * ROWS * STEP_US
    gone = [(ROWS + n, True, f"f{2 * n}", known, known, RETRACTED) for n in range(3)]
    segments.append(write_pile(tmp_path, ("records", 0, 0), gone, None))
    cuts = [
        ({0: ROWS, 1: ROWS}, ROWS),
        ({0: ROWS + 2, 1: ROWS}, ROWS - 2),
        ({0: ROWS + 3, 1: ROWS}, ROWS - 3),
    ]
    for number, (cut, rows) in enumerate(cuts):
        outcome, _ = train(tmp_path, job(segments, ROWS, cut=cut), str(number))
        assert outcome.trained.dataset.rows == rows


def test_a_retraction_in_the_log_is_read_as_from_segments(tmp_path):
    """A rebuild from the log must find the same rows as the training that it audits."""
    moment = "2013-01-01T05:15:00Z"
    entry = {"source": "s", "event_time": moment, "known_at": moment}
    entries = [
        {**entry, "kind": "observation", "id": "a", "fields": {"origin": "EWR", "wet": True}},
        {**entry, "kind": "label", "id": "a", "fields": {"origin": "EWR", "delay": 3.0}},
        {**entry, "kind": "label", "id": "a", "fields": {"origin": "EWR"}, "retraction": True},
    ]
    with (tmp_path / "0.log").open("wb") as file:
        for offset, each in enumerate(entries):
            append(file, offset, json.dumps(each).encode())
    compiled = compile_pipeline(from_definition(definition()))
    _, labels, vectors = replayed(tmp_path, [LogFile(partition=0, file="0.log")], {0: 3}, compiled)
    assert [json.loads(text) for text in labels.fields] == [entries[1]["fields"], json.loads(RETRACTED)]
    assert (vectors.ids, vectors.offset.tolist()) == (["a"], [0])


def test_another_run_id_seeds_another_bootstrap_but_keeps_the_dataset(tmp_path):
    """The dataset's digest is of its rows alone."""
    segments = write(tmp_path, ROWS)
    one, _ = train(tmp_path, job(segments, ROWS), "one")
    other, _ = train(tmp_path, job(segments, ROWS, run_id="run-2"), "two")
    assert one.trained.dataset.sha256 == other.trained.dataset.sha256
    assert one.trained.parameters["seed"] != other.trained.parameters["seed"]


def test_the_evidence_of_a_model_is_complete(tmp_path):
    """The registry approves by this, and by nothing else."""
    outcome, artifact = train(tmp_path, job(write(tmp_path, ROWS), ROWS))
    trained = outcome.trained
    assert [metric.name for metric in trained.metrics] == ["log_loss", "brier", "auc"]
    loss, auc = trained.metrics[0], trained.metrics[2]
    assert loss.candidate < loss.prior
    assert loss.better_than_prior_confidence > 0.9
    assert auc.candidate > 0.7
    assert auc.prior == 0.5
    assert {(s.feature, s.value) for s in loss.slices} == {
        *(("carrier", c) for c in "ABCD"),
        ("origin", "EWR"),
        ("origin", "JFK"),
    }
    assert trained.dataset.train_rows + trained.dataset.test_rows <= trained.dataset.rows == ROWS
    assert set(trained.seconds) == {"assemble", "fit_for_evaluation", "evaluate", "refit", "pack", "profile"}
    manifest = json.loads(unpack_model(artifact)[0])
    assert [f["name"] for f in manifest["features"]] == ["carrier", "wet", "wind"]
    assert manifest["features"][0]["categories"] == ["A", "B", "C", "D"]
    assert any(golden["values"][0] is None for golden in manifest["golden"])


def test_numbers_are_predicted_as_well(tmp_path):
    """A pipeline whose label is a number has other losses and no classes."""
    segments = write(tmp_path, ROWS)
    outcome, artifact = train(tmp_path, job(segments, ROWS, definition=definition("number")))
    mae, rmse = outcome.trained.metrics
    assert (mae.name, rmse.name) == ("mae", "rmse")
    assert mae.candidate < mae.prior
    assert rmse.candidate < rmse.prior
    assert json.loads(unpack_model(artifact)[0])["objective"] == "regression"


def test_without_refit_the_judged_model_is_the_published_one(tmp_path):
    """Whoever switches refit off wants exactly what was measured."""
    segments = write(tmp_path, ROWS)
    outcome, artifact = train(tmp_path, job(segments, ROWS, definition=definition(refit="false")))
    assert "refit" not in outcome.trained.seconds
    _, refitted = train(tmp_path, job(segments, ROWS), "refitted")
    assert unpack_model(artifact)[1] != unpack_model(refitted)[1]


def champion(tmp_path, segments, rows, version=1):
    """A model of the first rows, where a later job finds its champion."""
    made = job(segments, rows, pipeline_version=version, run_id="champion", definition=definition())
    outcome, artifact = train(tmp_path, made, "champion")
    sha256 = outcome.trained.artifact_sha256
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / sha256).write_bytes(artifact)
    return Champion(
        model_version=1,
        pipeline_version=version,
        artifact_sha256=sha256,
        last_event_time=outcome.trained.dataset.last_event_time,
        cut=made.cut,
    )


def test_the_champion_is_measured_on_rows_that_neither_has_seen(tmp_path):
    """Otherwise the older model always looks better, and nothing ever replaces it."""
    segments = write(tmp_path, ROWS)
    reigning = champion(tmp_path, segments, 800)
    outcome, _ = train(tmp_path, job(segments, ROWS, champion=reigning))
    loss = outcome.trained.metrics[0]
    assert outcome.trained.champion_version == 1
    assert loss.rows == outcome.trained.dataset.test_rows == 240
    assert loss.champion < loss.prior
    assert abs(loss.champion - loss.candidate) < 0.05
    assert 0 < loss.better_than_champion_confidence < 1
    assert all(s.champion is not None for s in loss.slices)


def test_a_champion_without_enough_new_rows_is_not_compared(tmp_path):
    """Two hundred rows are the least that say anything; a gate that asks for more evidence finds none."""
    segments = write(tmp_path, ROWS)
    reigning = champion(tmp_path, segments, ROWS - MINIMUM_COMPARED_ROWS + 2)
    outcome, _ = train(tmp_path, job(segments, ROWS, champion=reigning))
    assert outcome.trained.champion_version is None
    assert outcome.trained.metrics[0].champion is None
    assert outcome.trained.unseen == UnseenRows(champion_version=1, rows=198, needed=200)


def test_one_newer_row_that_the_champion_has_seen_bars_no_comparison(tmp_path):
    """History with one live observation in it: every later row of that history was taken for known."""
    segments = write(tmp_path, ROWS)
    reigning = champion(tmp_path, segments, 800)
    live = reigning.last_event_time + timedelta(days=3650)
    reigning = reigning.model_copy(update={"last_event_time": live})
    outcome, _ = train(tmp_path, job(segments, ROWS, champion=reigning))
    assert outcome.trained.champion_version == 1
    assert outcome.trained.unseen.rows == ROWS - 800


def test_a_job_of_an_earlier_release_gives_the_model_it_gave(tmp_path):
    """Without refit the published model depends on the split: verification must find the old one."""
    segments = write(tmp_path, ROWS)
    reigning = champion(tmp_path, segments, 800)
    unrefitted = definition(refit="false")
    without = reigning.model_copy(update={"cut": None})
    now, _ = train(tmp_path, job(segments, ROWS, definition=unrefitted, champion=reigning), "now")
    then, _ = train(tmp_path, job(segments, ROWS, definition=unrefitted, champion=without), "then")
    assert then.trained.artifact_sha256 == now.trained.artifact_sha256
    assert then.trained.unseen is None


def test_a_champion_of_another_pipeline_version_is_asked_by_its_own_vectors(tmp_path):
    """A changed pipeline must be able to show that it is better, or it could never be deployed."""
    older, newer = write(tmp_path, ROWS), write(tmp_path, ROWS, version=2)
    reigning = champion(tmp_path, older, 800)
    both = [*newer, *(segment for segment in older if segment.kind == "vectors")]
    outcome, _ = train(tmp_path, job(both, ROWS, pipeline_version=2, champion=reigning))
    same, _ = train(tmp_path, job(older, ROWS, champion=reigning), "same")
    assert outcome.trained.champion_version == 1
    assert outcome.trained.metrics[0].champion == same.trained.metrics[0].champion
    alone, _ = train(tmp_path, job(newer, ROWS, pipeline_version=2, champion=reigning), "alone")
    assert alone.trained.champion_version is None


def test_overrides_change_the_model(tmp_path):
    segments = write(tmp_path, ROWS)
    outcome, artifact = train(tmp_path, job(segments, ROWS, overrides={"trees": 1}))
    assert outcome.trained.parameters["trees"] == 1
    assert unpack_model(artifact)[1].count("Tree=") == 1


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (60, {}, "60 labelled rows lie below the cut"),
        (400, {"delay": 1.0}, "rows have the label 1"),
    ],
)
def test_data_that_gives_no_model_is_said_to(tmp_path, rows, options, said):
    """A reason and what to do, instead of a traceback in a log."""
    outcome, artifact = train(tmp_path, job(write(tmp_path, rows, **options), rows))
    assert artifact is None
    assert said in outcome.failed.reason
    assert outcome.failed.mend


def test_a_segment_that_was_changed_is_refused(tmp_path):
    """A flipped bit on disk must not become a model."""
    segments = write(tmp_path, 400)
    path = tmp_path / segments[0].file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    outcome, _ = train(tmp_path, job(segments, 400))
    assert "SHA-256 differs" in outcome.failed.reason


def test_a_training_ends_with_the_service_that_began_it(tmp_path):
    """After kill -9 of the trainer no orphan may eat a core for minutes."""
    work = job(write(tmp_path, ROWS), ROWS, overrides={"trees": 10_000})
    directory = tmp_path / "job"
    directory.mkdir()
    (directory / "job.json").write_text(work.model_dump_json())
    script = (
        "import os, subprocess, sys, time\n"
        "command = [str(os.getpid()) if part == 'PARENT' else part for part in sys.argv[1:]]\n"
        "print(subprocess.Popen(command).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = child_command("PARENT", directory, tmp_path)
    parent = subprocess.Popen([sys.executable, "-c", script, *command], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    time.sleep(0.5)  # whether it imports or trains by then
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (directory / "outcome.json").exists()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_service_imports_no_numbers():
    """Idle, a trainer takes tens of megabytes, not hundreds: LightGBM and Parquet live in its children."""
    script = "import sys, everloop_trainer.__main__; print(*sorted(sys.modules))"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True, env=dict(os.environ)).split()
    heavy = {"numpy", "pyarrow", "pandas", "scipy", "lightgbm", "alembic", "sqlalchemy"}
    assert heavy & set(loaded) == set()
