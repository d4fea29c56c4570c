"""The training process: `python -m everloop_trainer.train JOB_DIRECTORY DATA_DIRECTORY PARENT_PID`.

Reads `job.json`, leaves `artifact.tar` and then `outcome.json`, each complete or absent. It knows no database and no
broker, so that it survives rebalances, and its memory is given back when it ends. It ends with its parent.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from everloop_features import Compiled, compile  # noqa: A004 - the feature language's name for it
from everloop_schemas.pipeline import Pipeline, from_definition

from everloop_trainer.adapters.boosting import LightGbm, LoadedModel
from everloop_trainer.adapters.log_files import replayed
from everloop_trainer.adapters.orphans import end_with_parent
from everloop_trainer.adapters.segment_files import read_records, read_vectors
from everloop_trainer.application.snapshot import snapshot
from everloop_trainer.application.training import Fitted, Stopwatch, Training, train
from everloop_trainer.domain.artifact import unpack_model
from everloop_trainer.domain.dataset import Dataset
from everloop_trainer.domain.job import Job, Outcome, Trained, Untrainable, UntrainableError

Source = Callable[[Path, Job, Pipeline, Compiled], Dataset]


def main(directory: Path, root: Path) -> None:
    """Do the job in `directory`; the trainer's files lie under `root`."""
    job = Job.model_validate_json((directory / "job.json").read_bytes())
    try:
        trained, data = _train(job, root)
        outcome = Outcome(trained=trained)
        write_whole(directory / "artifact.tar", data)
    except UntrainableError as error:
        outcome = Outcome(failed=Untrainable(reason=error.reason, mend=error.mend))
    write_whole(directory / "outcome.json", outcome.model_dump_json().encode())


def _train(job: Job, root: Path) -> tuple[Trained, bytes]:
    watch = Stopwatch(time.perf_counter)
    pipeline = from_definition(job.definition)
    compiled = compile(pipeline)
    if isinstance(compiled, list):
        raise UntrainableError(
            f"the pipeline's expressions are refused: {compiled[0]}", "Apply the pipeline again"
        )
    with watch.step("assemble"):
        dataset = _dataset(job, root, pipeline, compiled)
    champion = None if job.champion is None else _champion(root / "artifacts" / job.champion.artifact_sha256)
    return train(Training(job, pipeline, dataset, LightGbm(pipeline.label.type), champion, watch))


def _dataset(job: Job, root: Path, pipeline: Pipeline, compiled: Compiled) -> Dataset:
    if job.log is not None:
        return snapshot(job, pipeline, compiled, *replayed(root, job.log, job.cut, compiled))
    observations, labels = read_records(root, job.segments)
    features = list(zip(compiled.names, compiled.types, strict=True))
    return snapshot(job, pipeline, compiled, observations, labels, read_vectors(root, job.segments, features))


def _champion(artifact: Path) -> Fitted:
    manifest, model = unpack_model(artifact.read_bytes())
    features = json.loads(manifest)["features"]
    categories = {feature["name"]: feature["categories"] for feature in features if "categories" in feature}
    return Fitted(LoadedModel.from_text(model), categories)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is complete under its name or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[3]))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
