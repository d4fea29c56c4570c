"""Log records in, Kafka records out: keys, partitions, headers, poison."""

import dataclasses
import math
from typing import Any

import msgspec
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from everloop_feature.adapters.opening import TaskOpener
from everloop_feature.adapters.progress import Progress
from everloop_feature.adapters.task import FeatureTask
from everloop_feature.application.pipelines import Pipelines
from everloop_feature.entrypoints.decisions import Decisions
from everloop_kernel.errors import ConfigurationError, EverloopError
from everloop_schemas import cloudevents
from everloop_schemas.events import (
    ArtifactRef,
    DeploymentChanged,
    Event,
    ModelRef,
    PipelineDefined,
    RecordAccepted,
    VectorComputed,
)
from everloop_schemas.pipeline import Pipeline, to_definition
from prometheus_client import REGISTRY

LOG = TopicPartition("ingest-record-accepted-v1.shops", 3)
NOW = "2020-01-01T00:00:00Z"
DEFINITION = {
    "pipeline": "shops",
    "partition_by": ["shop"],
    "observation": {"event_time": "at", "fields": {"shop": {"type": "category"}, "size": {"type": "number"}}},
    "label": {"type": "binary", "fields": {"gain": {"type": "number"}}, "value": {"won": "gain > 0"}},
    "features": {
        "n": "count(window='1h', by=[shop])",
        "third": "size / 3",
        "shop": "shop",
        "big": "size > 2",
    },
}


def message(event: Event) -> tuple[bytes, list[tuple[str, bytes]]]:
    return cloudevents.encode(event, id="e", source="test")


def defined(version: int = 1, **changes: Any) -> PipelineDefined:
    definition = to_definition(Pipeline.model_validate({**DEFINITION, **changes}))
    return PipelineDefined.model_validate(
        {"pipeline": "shops", "version": version, "definition": definition, "sha256": "0" * 64,
         "partitions": 4, "defined_at": NOW, "defined_by": "test"}
    )  # fmt: skip


def deployed(*versions: int) -> DeploymentChanged:
    artifact = ArtifactRef(sha256="0" * 64, bytes=1, chunks=1)
    models = [ModelRef(model_version=v, pipeline_version=v, artifact=artifact) for v in versions]
    return DeploymentChanged.model_validate(
        {"pipeline": "shops", "revision": 1, "champion": models[0], "pinned": models[1:], "reason": "",
         "key_id": "", "changed_at": NOW, "signature": ""}
    )  # fmt: skip


def task(*events: Event) -> FeatureTask:
    pipelines = Pipelines(lambda _: None)
    decisions = Decisions(pipelines)
    for event in events or (defined(),):
        decisions(event.topic, b"shops", *message(event))
    features = pipelines.features("shops")
    assert features is not None
    return FeatureTask("shops", LOG, features)


def log_record(offset: int, value: bytes | None, headers: Any = ()) -> ConsumerRecord:
    return ConsumerRecord(*LOG, offset, 0, 0, b"key-a", value, None, 0, 0, tuple(headers))


def observation(offset: int, **changes: Any) -> ConsumerRecord:
    fields = {"kind": "observation", "id": f"r{offset}", "source": "s", "event_time": NOW, "known_at": NOW}
    event = {**fields, "fields": {"shop": "a", "size": 1.0}, **changes}
    return log_record(offset, msgspec.json.encode(event))


def test_a_vector_is_a_valid_event_on_its_partition() -> None:
    """The trainer reads vectors by the shared schema; the key and partition are those of the log."""
    (output, *_) = task().derive([observation(7)]).outputs
    assert (output.topic, output.partition, output.key) == ("feature-vector-computed-v1.shops", 3, b"key-a")
    event = cloudevents.decode(VectorComputed, output.value, output.headers)
    assert isinstance(event, VectorComputed)
    assert (event.id, event.pipeline_version, event.log_partition, event.log_offset) == ("r7", 1, 3, 7)
    assert event.values == [False, 0.0, "a", 1 / 3]
    assert output.value == event.model_dump_json().encode()
    envelope = cloudevents.envelope(output.headers, output.value)
    assert isinstance(envelope, cloudevents.Envelope)
    assert envelope.id == "v1-3-7"
    (again, *_) = task().derive([observation(7)]).outputs
    assert cloudevents.envelope(again.headers, again.value) == envelope


def test_state_goes_to_the_same_partition() -> None:
    """Serving and a restarted task find state where the log's partition number says."""
    step = task().derive([observation(0), observation(1)])
    assert len(step.outputs) == 2 + 4
    state = step.outputs[2:]
    assert {(output.topic, output.partition) for output in state} == {("feature-state-changed-v1.shops", 3)}
    assert state[0].key == b"v1\x1fdefinition"
    (restored,) = task().restore_from()
    assert (restored.topic, restored.partition, restored.always) == (*state[0][:2], True)


def test_deriving_twice_gives_the_same() -> None:
    """A transaction that is tried again must not count its records twice."""
    running = task()
    first, second = (running.derive([observation(0), observation(1)]) for _ in range(2))
    assert first.outputs == second.outputs
    running.apply(second.state)
    assert (
        cloudevents.strict_json(running.derive([observation(2)]).outputs[0].value or b"")["values"][1] == 2.0
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b'{"kind":"observation"}',
        msgspec.json.encode({"kind": "other", "id": "a", "event_time": NOW, "known_at": NOW, "fields": {}}),
        msgspec.json.encode({"kind": "label", "id": "a", "event_time": "2020-01-01T00:00:00", "known_at": NOW,
                             "fields": {}}),
        msgspec.json.encode({"kind": "label", "id": "a", "event_time": NOW, "known_at": NOW,
                             "fields": {"a": [1]}}),
    ],
)  # fmt: skip
def test_poison_is_set_aside(value: bytes | None) -> None:
    """One broken record must not stop the others, nor disappear."""
    step = task().derive([observation(0), log_record(1, value), observation(2)])
    assert [letter.record.offset for letter in step.dead] == [1]
    assert step.dead[0].reason
    assert len(step.state.vectors) == 2


def test_structured_events_are_read() -> None:
    """CloudEvents allows both modes; a record in the other one is no poison."""
    event = RecordAccepted.model_validate_json(observation(0).value or b"")
    text = {"specversion": "1.0", "id": "e", "source": "s", "type": event.type_name(),
            "data": event.model_dump(mode="json")}  # fmt: skip
    structured = log_record(0, msgspec.json.encode(text), [("content-type", b"application/cloudevents+json")])
    step = task().derive([structured])
    assert not step.dead
    values = msgspec.json.decode(step.state.vectors[0].value or b"")["values"]
    assert values == [False, 0.0, "a", 1 / 3]


def test_generation_names_every_version_in_use() -> None:
    """A version that somebody serves is computed, whatever the newest is."""
    assert task(defined(2), deployed(2, 1)).generation == "v1,v2"
    assert task(defined(2), deployed(1), deployed(2)).generation == "v2"


def test_a_decision_that_cannot_be_read_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A broken event on a decision topic must not take running pipelines down."""
    pipelines = Pipelines(lambda _: None)
    decisions = Decisions(pipelines)
    decisions(PipelineDefined.topic, b"shops", *message(defined()))
    broken = defined(2, features={"n": "no_such_function(1)"})
    decisions(PipelineDefined.topic, b"shops", *message(broken))
    decisions(PipelineDefined.topic, b"shops", b"{}", [])
    decisions(DeploymentChanged.topic, b"shops", b"\xff", [])
    decisions(PipelineDefined.topic, b"shops", None, [])
    features = pipelines.features("shops")
    assert features is not None
    assert features.version == 1
    assert len(caplog.records) == 3
    assert "no_such_function" in caplog.text


class Known:
    async def wait_caught_up(self) -> None:
        return


async def test_a_pipeline_may_be_defined_a_moment_later() -> None:
    """The log's topic can be seen before the definition is read: waiting is right, guessing is not."""
    pipelines = Pipelines(lambda _: None)
    opener = TaskOpener(pipelines, Known(), patience_seconds=0.05)
    with pytest.raises(EverloopError, match="no pipeline 'shops'"):
        await opener(LOG)
    Decisions(pipelines)(PipelineDefined.topic, b"shops", *message(defined()))
    assert (await opener(LOG)).generation == "v1"


def test_a_replay_is_in_the_metrics_until_it_is_over() -> None:
    """`everloop status` reads it there: without it a replay looks like a service that hangs."""
    before = task()
    step = before.derive([observation(offset) for offset in range(10)])
    before.apply(step.state)
    written = [one for one in step.outputs if one.topic.startswith("feature-state")]
    replaying = task(defined(2))
    replaying.resume("v1")
    replaying.restore(
        [ConsumerRecord(*LOG, 0, 0, 0, key, value, None, 0, 0, ()) for _, _, key, value, _ in written]
    )
    assert replaying.catch_up_from(10) == 0
    assert shown() == (0, 10)
    replaying.apply(replaying.derive_past([observation(offset) for offset in range(4)], None).state)
    assert shown() == (4, 10)
    replaying.apply(replaying.derive([observation(offset) for offset in (10, 11)]).state)
    assert shown() == (4, 12)
    replaying.apply(replaying.derive_past([observation(offset) for offset in range(4, 12)], 12).state)
    assert shown() == (12, 12)
    assert shown("rows_per_second", "seconds_left") == (0, 0)
    assert REGISTRY.get_sample_value("everloop_feature_cut", {**PARTITION, "version": "2"}) == 12


PARTITION = {"pipeline": "shops", "partition": "3"}


def shown(*names: str) -> tuple[float | None, ...]:
    names = names or ("position", "target")
    return tuple(REGISTRY.get_sample_value(f"everloop_feature_replay_{name}", PARTITION) for name in names)


def test_the_pace_of_a_replay_says_when_it_ends() -> None:
    """Two thousand rows a second against a thousand live ones close a gap of ten thousand in ten seconds."""
    now = [0.0]
    progress = Progress("shops", 3, clock=lambda: now[0])
    for now[0], position, target in ((0.0, 0, 10_000), (1.0, 2_000, 11_000), (2.0, 4_000, 12_000)):
        progress.note(position, target)
    assert shown("rows_per_second", "seconds_left") == (2_000, 8.0)
    now[0] = 3.0
    progress.note(4_000, 15_000)
    assert shown("seconds_left") == (math.inf,), "live records come faster"


def test_poison_of_the_past_is_not_set_aside_again() -> None:
    """It is in the dead letters since it was live; a replay that adds it again makes people look twice."""
    replaying = task(defined(2))
    replaying.resume("v1")
    replaying.catch_up_from(3)
    step = replaying.derive_past([observation(0), log_record(1, b"poison"), observation(2)], 3)
    assert (step.dead, step.generation) == ([], "v2")
    assert len(step.state.vectors) == 2


def test_unreadable_state_is_said_and_never_a_traceback(caplog) -> None:
    """Whoever is on call must read what happens, and where only a person can help, what to do."""
    broken = dataclasses.replace(log_record(0, b"\xc1"), key=b"v1\x1fclock")
    opened = task()
    opened.restore([broken])
    assert opened.begin(0, 7) == 0
    assert "feature-state-changed-v1.shops, partition 3, cannot be read (version 1:" in caplog.text
    assert "computed again from the log" in caplog.text
    opened = task()
    opened.restore([broken])
    with pytest.raises(ConfigurationError, match="EVERLOOP_FEATURE_ACCEPT_PARTIAL_STATE=true"):
        opened.begin(2, 7)
    sound = task()
    assert (sound.begin(2, 7), sound.begin(2, None)) == (7, 2)
