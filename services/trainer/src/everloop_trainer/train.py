"""The child process that trains: the job in DIRECTORY, the trainer's files below ROOT.

Reads `job.json`, leaves `artifact.tar` and then `outcome.json`, each complete or absent. It knows no database
and no broker: it survives rebalances, and its memory is given back when it ends. It ends with its parent.
"""

import json
import os
import time
from pathlib import Path

import msgspec
from everloop_features import Compiled, compile  # noqa: A004 - the feature language's name for it
from everloop_schemas.events import DataProfiled
from everloop_schemas.pipeline import Pipeline, from_definition

from everloop_trainer.adapters.boosting import LightGbm, LoadedModel
from everloop_trainer.adapters.log_files import replayed
from everloop_trainer.adapters.segment_files import read_records, read_vectors
from everloop_trainer.application.contenders import Contender, Elsewhere, Fitted
from everloop_trainer.application.profiling import data_profile
from everloop_trainer.application.snapshot import snapshot
from everloop_trainer.application.stopwatch import Stopwatch
from everloop_trainer.application.training import Training, train
from everloop_trainer.domain.artifact import unpack_model
from everloop_trainer.domain.dataset import Vectors
from everloop_trainer.domain.job import Champion, Job, Outcome, Trained, Untrainable, UntrainableError
from everloop_trainer.domain.records import Records, retractions_among


def main(directory: str, root: str) -> None:
    """Do the job as a process of its own."""
    do_job(Path(directory), Path(root))


def do_job(directory: Path, root: Path) -> None:
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
        observations, labels, vectors = _below_cut(job, root, compiled)
        taken = snapshot(
            job=job,
            pipeline=pipeline,
            evaluator=compiled,
            observations=observations,
            labels=labels,
            vectors=vectors,
        )
    verifying = job.log is not None
    champion = None if job.champion is None or verifying else _champion(job, job.champion, root)
    learner = LightGbm(pipeline.label.type)
    trained, data = train(Training(job, pipeline, taken.dataset, taken.seen, learner, champion, watch))
    if verifying:
        return trained, data
    with watch.step("profile"):
        profile = _profile(job, pipeline, observations, labels, trained.dataset.sha256)
    return trained.model_copy(update={"profile": profile, "seconds": watch.seconds}), data


def _profile(
    job: Job, pipeline: Pipeline, observations: Records, labels: Records, sha256: str
) -> DataProfiled | None:
    _, told = retractions_among(labels)
    return data_profile(job, pipeline, observations, told, sha256=sha256, read=msgspec.json.decode)


def _below_cut(job: Job, root: Path, compiled: Compiled) -> tuple[Records, Records, Vectors]:
    """What the job is made of; it may reach beyond the cut, which `snapshot` applies."""
    if job.log is not None:
        return replayed(root, job.log, job.cut, compiled)
    observations, labels = read_records(root, job.segments)
    features = list(zip(compiled.names, compiled.types, strict=True))
    return observations, labels, read_vectors(root, job.segments, job.pipeline_version, features)


def _champion(job: Job, champion: Champion, root: Path) -> Contender:
    manifest, model = unpack_model((root / "artifacts" / champion.artifact_sha256).read_bytes())
    features = json.loads(manifest)["features"]
    categories = {feature["name"]: feature["categories"] for feature in features if "categories" in feature}
    fitted = Fitted(LoadedModel.from_text(model), categories)
    if champion.pipeline_version == job.pipeline_version:
        return fitted
    columns = [(feature["name"], feature["type"]) for feature in features]
    return Elsewhere(fitted, read_vectors(root, job.segments, champion.pipeline_version, columns))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is complete under its name or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
