"""One log partition: versions at positions of their own, nothing published twice, old state removed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from everloop_feature.application.pipelines import Pipelines, UnusablePipelineError, read_version
from everloop_feature.domain.partition import Derived, PartitionFeatures, PipelineVersion
from everloop_features import Record, State
from everloop_schemas import canonical
from everloop_schemas.pipeline import Pipeline, to_definition

START = datetime(2020, 1, 1, tzinfo=UTC)


def version(number: int, window: str = "1h") -> PipelineVersion:
    definition = {
        "pipeline": "shops",
        "partition_by": ["shop"],
        "observation": {
            "event_time": "at",
            "fields": {"shop": {"type": "category"}, "size": {"type": "number"}},
        },
        "label": {"type": "binary", "fields": {"gain": {"type": "number"}}, "value": {"won": "gain > 0"}},
        "features": {"n": f"count(window='{window}', by=[shop])", "size": "size"},
    }
    return read_version(number, canonical.dumps(to_definition(Pipeline.model_validate(definition))))


def entries(first: int, last: int) -> list[tuple[int, Record]]:
    """Records at the offsets first…last, a minute apart, one in four a label."""
    return [(offset, record(offset)) for offset in range(first, last + 1)]


def record(offset: int) -> Record:
    at = START + timedelta(minutes=offset)
    if offset % 4 == 3:
        return Record("label", f"r{offset - 1}", at, at, {"shop": "a", "gain": 1.0})
    return Record("observation", f"r{offset}", at, at, {"shop": "a", "size": float(offset)})


class Partition:
    """A state topic's partition, and the process that works on it."""

    def __init__(self, current: PipelineVersion, *deployed: int) -> None:
        self.topic: dict[bytes, bytes] = {}
        self.restart(current, *deployed)

    def restart(self, current: PipelineVersion, *deployed: int) -> None:
        self.features = PartitionFeatures(current, deployed, read_version)
        for key, value in self.topic.items():
            self.features.restore(key, value)

    def handle(self, first: int, last: int) -> Derived:
        derived = self.features.derive(entries(first, last), lambda vector: vector)
        self.features.apply(derived)
        for key, value in derived.changes:
            if value is None:
                del self.topic[key]
            else:
                self.topic[key] = value
        return derived

    def versions(self) -> set[bytes]:
        return {key.split(b"\x1f")[0] for key in self.topic if not key.endswith(b"definition")}

    def served(self, used: PipelineVersion, offset: int) -> list[Any]:
        """The vector that serving computes from the topic for a record that comes next."""
        state: State = used.compiled.new_state(used.version)
        for key, value in self.topic.items():
            state.load(key, value)
        at = START + timedelta(minutes=offset) - datetime(1970, 1, 1, tzinfo=UTC)
        return used.compiled.vector({"shop": "a", "size": 0.0}, at // timedelta(microseconds=1), state)


def offsets(derived: Derived) -> list[int]:
    return [vector.offset for vector in derived.vectors]


def test_a_restart_goes_on_where_the_state_is() -> None:
    """Wherever the reading begins after a crash, no vector comes twice and none is missing."""
    partition = Partition(version(1))
    assert offsets(partition.handle(0, 9)) == [0, 1, 2, 4, 5, 6, 8, 9]
    partition.restart(version(1))
    again = partition.handle(0, 12)
    assert offsets(again) == [10, 12]
    assert again.vectors[-1].values == [9.0, 12.0]


def test_a_changed_pipeline_replays_the_log() -> None:
    """The new version's vectors exist for the whole past, as if it had always been there."""
    partition = Partition(version(1))
    partition.handle(0, 9)
    partition.restart(version(2, "5m"))
    assert partition.features.generation == "v2"
    assert offsets(partition.handle(0, 4)) == [0, 1, 2, 4]
    assert partition.versions() == {b"v1", b"v2"}  # serving may still need the old one: the new one is behind
    assert partition.handle(5, 9).vectors[-1].values == [3.0, 9.0]  # the minutes 5, 6 and 8
    assert partition.versions() == {b"v2"}


def test_a_deployed_version_is_kept_up() -> None:
    """While the old model serves, its windows must go on filling, or its predictions rot."""
    old, new = version(1), version(2, "5m")
    partition = Partition(old)
    partition.handle(0, 9)
    partition.restart(new, 1)
    assert partition.features.generation == "v1,v2"
    first = partition.handle(0, 7)
    assert offsets(first) == [0, 1, 2, 4, 5, 6]
    assert partition.served(old, 10) == [8.0, 0.0]
    assert offsets(partition.handle(8, 14)) == [8, 9, 10, 12, 13, 14]
    assert partition.served(old, 15) == [12.0, 0.0]
    assert partition.versions() == {b"v1", b"v2"}
    partition.restart(new)
    assert offsets(partition.handle(0, 16)) == [16]
    assert partition.versions() == {b"v2"}


def test_a_version_can_be_deployed_again() -> None:
    """A rollback to a model of an older version must find its state, rebuilt from the log."""
    old, new = version(1), version(2, "5m")
    partition = Partition(old)
    partition.handle(0, 9)
    partition.restart(new)
    partition.handle(0, 9)
    assert partition.versions() == {b"v2"}
    partition.restart(new, 1)
    assert not partition.features.unknown
    assert partition.handle(0, 9).vectors == []
    assert partition.served(old, 10) == [8.0, 0.0]


def test_a_deployed_version_without_a_definition_is_told() -> None:
    """A model whose features nobody can compute must not go unnoticed."""
    partition = Partition(version(3), 2)
    assert partition.features.unknown == {2}
    assert partition.features.generation == "v2,v3"


def test_pipelines_tell_of_other_versions_only() -> None:
    """A new model of the same pipeline version must not make the stream read its state again."""
    changed: list[str] = []
    pipelines = Pipelines(changed.append)
    definition = version(1).definition
    pipelines.deploy("shops", frozenset({1}))
    assert pipelines.features("shops") is None
    pipelines.define("shops", 1, definition)
    pipelines.define("shops", 1, definition)
    pipelines.deploy("shops", frozenset({1}))
    assert changed == ["shops"]
    pipelines.define("shops", 2, definition)
    pipelines.deploy("shops", frozenset({2}))
    assert changed == ["shops"] * 3
    features = pipelines.features("shops")
    assert features is not None
    assert features.generation == "v2"


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (b"{}", "Field required"),
        (b"no json", "cannot be read"),
        (version(1).definition.replace(b"count(", b"cuont("), "unknown-function"),
    ],
)
def test_an_unusable_definition_says_why(definition: bytes, said: str) -> None:
    """A version that cannot be computed must name its problem."""
    with pytest.raises(UnusablePipelineError, match=said):
        read_version(1, definition)


def test_a_replay_is_seen_to_move_until_it_has_seen_what_the_version_before_had() -> None:
    """On call must tell a replay from a service that hangs."""
    partition = Partition(version(1))
    partition.handle(0, 99)
    assert partition.features.replay == (100, 100)
    partition.restart(version(2, "5h"))
    assert partition.features.replay == (0, 100)
    partition.handle(0, 39)
    assert partition.features.replay == (40, 100)
    partition.restart(version(2, "5h"))
    assert partition.features.replay == (40, 100)
    partition.handle(40, 120)
    assert partition.features.replay == (121, 121)
