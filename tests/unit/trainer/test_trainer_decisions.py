"""The use cases on a desk held in memory: what opens a run, what it fixes, and how it ends."""

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from everloop_schemas.events import (
    DatasetRef,
    ModelTrained,
    RecordAccepted,
    RunFailed,
    RunStarted,
    VectorComputed,
)
from everloop_schemas.pipeline import load, to_definition
from everloop_trainer.application.carry_out import carry_out
from everloop_trainer.application.consider import consider, supersede
from everloop_trainer.application.ports import CrashedError, Definition, Desk
from everloop_trainer.application.record import record_log, record_vectors
from everloop_trainer.domain.job import Outcome, Trained, Untrainable
from everloop_trainer.domain.policy import Arrival, LastRun, ManualRequest, Reigning, Situation
from everloop_trainer.domain.runs import Progress, pipeline_time

NOW = datetime(2013, 2, 1, tzinfo=UTC)
FILE = """
pipeline: flights
partition_by: [origin]
partitions: 3
observation: {event_time: at, fields: {origin: {type: category}}}
label: {type: binary, fields: {delay: {type: number}}, value: {late: delay > 15}}
training: {when: {new_labelled_rows: 100, cooldown: 1d}, minimum_rows: 50}
"""


class Memory:
    """A trainer's state in memory, for one pipeline: Recording, Decisions, Conclusion, Runs, all in one."""

    def __init__(self):
        pipeline = load(FILE)
        self.definition_ = Definition(pipeline, 1, "a" * 64, to_definition(pipeline), 3, "defined-1")
        self.progress = {}
        self.situation = {}
        self.runs, self.emitted, self.staged, self.vectors = {}, [], [], {}
        self.jobs, self.versions, self.released = {}, 0, []
        self.lost = False

    # Recording
    async def add_records(self, pipeline, batch, rows):
        self.progress[batch.progress.partition] = batch.progress
        self.staged += rows

    async def vectors_seen(self, pipeline, version, partition):
        rows = self.vectors.get((version, partition), [])
        return rows[-1].offset if rows else -1

    async def add_vectors(self, pipeline, version, partition, rows):
        self.vectors.setdefault((version, partition), []).extend(rows)

    # Decisions
    async def desk(self, pipeline):
        if pipeline != "flights":
            return None
        known = {
            "pipeline_version": self.definition_.version,
            "labels": sum(p.labels for p in self.progress.values()),
            "pipeline_time": pipeline_time(self.progress),
            "active": any(state == "waiting" for _, state in self.runs.values()),
        }
        return Desk(self.definition_, Situation(**{**known, **self.situation}), self.progress)

    async def open_run(self, run):
        if run.run_id in self.runs:
            return False
        self.runs[run.run_id] = (run, "waiting")
        return True

    async def supersede(self, pipeline, version):
        old = [
            run for run, state in self.runs.values() if state == "waiting" and run.pipeline_version < version
        ]
        for run in old:
            self.runs[run.run_id] = (run, "failed")
        return old

    def emit(self, event, *, id, key):  # noqa: A002
        self.emitted.append((id, event))

    # Conclusion and Runs
    @asynccontextmanager
    async def conclusion(self):
        yield self

    async def end_trained(self, run, trained):
        if self.lost:
            return None
        self.runs[run.run_id] = (run, "trained")
        self.versions += 1
        return self.versions

    async def end_failed(self, run, failed):
        self.runs[run.run_id] = (run, "failed")
        return not self.lost

    def emit_artifact(self, data):
        self.emitted.append(("chunks", data))
        return 1

    async def definition(self, run):
        return self.definition_

    async def champion(self, run):
        return None

    async def job(self, run):
        return self.jobs.get(run.run_id)

    async def keep_job(self, run, job):
        self.jobs[run.run_id] = job

    async def release(self, run, *, crashed):
        self.released.append(crashed)

    async def segments_below(self, pipeline, versions, cut):
        return []

    def events(self, kind):
        return [event for _, event in self.emitted if isinstance(event, kind)]


class Processes:
    """Trainings that answer, or crash, as told; artifacts are kept in a dictionary."""

    def __init__(self, *answers):
        self.answers, self.jobs, self.kept, self.forgotten = list(answers), [], {}, []

    async def outcome(self, job):
        self.jobs.append(job)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer, b"model" if answer.trained else None

    def forget(self, run_id):
        self.forgotten.append(run_id)

    async def ensure(self, sha256):
        return sha256 in self.kept

    def keep(self, sha256, data):
        self.kept[sha256] = data


def progress(partition, labels, next_offset=500, last_observation=498):
    return Progress(partition, next_offset, last_observation, labels, NOW)


@pytest.fixture
def memory():
    made = Memory()
    made.progress = {0: progress(0, 80), 2: progress(2, 40, 300, -1)}
    made.situation = {"arrival": Arrival("arrived-1")}
    return made


async def opened(memory):
    return await consider("flights", memory, None)


async def test_a_run_fixes_its_cut_when_it_is_decided(memory):
    """Rows that come later belong to the next run; an untouched partition has nothing below the cut."""
    run = await opened(memory)
    assert run.cut == {0: 500, 1: 0, 2: 300}
    assert run.needs == {0: 498}
    assert run.labels_at_cut == 120
    [started] = memory.events(RunStarted)
    assert (started.run_id, started.cut, started.started_at) == (run.run_id, run.cut, NOW)


async def test_one_trigger_never_gives_two_runs(memory):
    """A redelivered event must not train, and publish, a second model."""
    first = await opened(memory)
    memory.runs[first.run_id] = (first, "trained")
    assert await opened(memory) is None
    assert len(memory.events(RunStarted)) == 1


async def test_a_pipeline_that_is_not_defined_waits(memory):
    """Data may arrive before the definition does, on another topic."""
    assert await consider("unheard-of", memory, None) is None


async def test_overrides_belong_to_the_request_alone(memory):
    memory.situation = {"manual": ManualRequest("asked-1", "try", {"trees": 1})}
    assert (await opened(memory)).overrides == {"trees": 1}
    other = Memory()
    other.progress = {0: progress(0, 120)}
    other.situation = {"arrival": Arrival("a"), "last": LastRun(1, 0, NOW - timedelta(days=9))}
    assert (await opened(other)).overrides == {}


async def test_a_replaced_version_ends_the_run_that_waited_for_it(memory):
    run = await opened(memory)
    await supersede("flights", 2, memory)
    [failed] = memory.events(RunFailed)
    assert failed.run_id == run.run_id
    assert memory.runs[run.run_id][1] == "failed"


def trained():
    dataset = DatasetRef(
        sha256="b" * 64,
        rows=120,
        train_rows=90,
        test_rows=24,
        cut={0: 500},
        first_event_time=NOW,
        last_event_time=NOW,
    )
    return Outcome(
        trained=Trained(
            dataset=dataset,
            artifact_sha256="c" * 64,
            artifact_bytes=5,
            champion_version=None,
            metrics=[],
            parameters={},
            libraries={},
            seconds={},
        )
    )


async def test_a_model_is_published_with_its_bytes_before_it(memory):
    """Whoever hears of a model must be able to fetch it."""
    run, processes = await opened(memory), Processes(trained())
    memory.situation = {"active": False}
    await carry_out(run, memory, memory, processes, processes)
    kinds = [type(event) for _, event in memory.emitted]
    assert kinds == [RunStarted, bytes, ModelTrained]
    assert processes.kept == {"c" * 64: b"model"}
    assert processes.forgotten == [run.run_id]


async def test_a_run_taken_over_by_another_instance_publishes_nothing(memory):
    """After a lost lease the other instance's model counts, and only that."""
    run, processes = await opened(memory), Processes(trained())
    memory.lost = True
    await carry_out(run, memory, memory, processes, processes)
    assert memory.events(ModelTrained) == []


async def test_a_second_attempt_does_the_same_job(memory):
    """Rows and champions came in between; a model must not depend on how often its run was tried."""
    run, processes = await opened(memory), Processes(CrashedError("killed"), trained())
    await carry_out(run, memory, memory, processes, processes)
    assert memory.released == [True]
    await carry_out(run, memory, memory, processes, processes)
    assert processes.jobs[0] == processes.jobs[1]


async def test_a_run_that_crashes_again_and_again_fails_with_its_reason(memory):
    """Out of memory three times: a fourth attempt would only take the machine down again."""
    run = await opened(memory)
    object.__setattr__(run, "crashes", 2)
    processes = Processes(CrashedError("exit code -9: it said nothing"))
    await carry_out(run, memory, memory, processes, processes)
    [failed] = memory.events(RunFailed)
    assert "died 3 times: exit code -9" in failed.reason
    assert "memory" in failed.mend


async def test_what_waited_for_a_run_is_considered_at_its_end(memory):
    """A request during a run starts when the run ends, not with the next record, which may be far."""
    run = await opened(memory)
    memory.situation = {"manual": ManualRequest("asked-2", "next")}
    outcome = Outcome(failed=Untrainable(reason="few", mend="more"))
    processes = Processes(outcome)
    await carry_out(run, memory, memory, processes, processes)
    assert [event.trigger.kind for event in memory.events(RunStarted)] == ["new-data", "manual"]


def record(kind, at=NOW):
    return RecordAccepted(kind=kind, id="a", source="s", event_time=at, known_at=at, fields={"x": 1.5})


async def test_the_log_is_kept_with_its_progress(memory):
    """Offsets have gaps: the cut is one above the last record, not a count."""
    entries = [(7, record("observation")), (9, record("label")), (12, record("label", NOW + timedelta(1)))]
    assert await record_log("flights", 1, entries, memory, json.dumps)
    assert memory.progress[1] == Progress(1, 13, 7, 2, NOW + timedelta(1))
    assert [(row.offset, row.label, row.data) for row in memory.staged] == [
        (7, False, '{"x": 1.5}'),
        (9, True, '{"x": 1.5}'),
        (12, True, '{"x": 1.5}'),
    ]
    assert not await record_log("flights", 1, [], memory, json.dumps)
    assert not await record_log("flights", 1, [(20, record("observation"))], memory, json.dumps)


async def test_vectors_that_are_computed_again_are_kept_once(memory):
    """A feature service that starts a partition over must not double the training rows."""

    def vector(version, offset):
        return VectorComputed(
            id="a",
            pipeline_version=version,
            log_partition=0,
            log_offset=offset,
            event_time=NOW,
            known_at=NOW,
            values=[1.0],
        )

    await record_vectors("flights", [vector(1, 0), vector(1, 3)], memory, json.dumps)
    again = [vector(1, 0), vector(1, 3), vector(1, 5), vector(2, 0), vector(2, 3)]
    await record_vectors("flights", again, memory, json.dumps)
    kept = {key: [row.offset for row in rows] for key, rows in memory.vectors.items()}
    assert kept == {(1, 0): [0, 3, 5], (2, 0): [0, 3]}


async def test_only_a_pipeline_whose_gates_ask_for_the_champion_is_held_back(memory):
    """Where no gate compares there is nothing to wait for."""
    memory.situation = {"arrival": Arrival("arrived-1"), "champion": Reigning(1, 1, 0)}
    assert await opened(memory) is None
    free = load(FILE + "gates: [{metric: log_loss, better_than: prior}]\n")
    memory.definition_ = replace(memory.definition_, pipeline=free)
    assert (await opened(memory)).trigger.kind == "new-data"
