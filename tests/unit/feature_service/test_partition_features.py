"""One log partition: versions at positions of their own, replayed beside live records, published at a cut."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from everloop_feature.application.pipelines import Pipelines, UnusablePipelineError, read_version
from everloop_feature.domain.generation import published_by
from everloop_feature.domain.partition import (
    Derived,
    LogIncompleteError,
    PartitionFeatures,
    PipelineVersion,
)
from everloop_features import Record, State
from everloop_features.packing import cut_key, unpack_formatted
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
    """A log partition's state topic and committed offset, and the process that works on it."""

    def __init__(self, current: PipelineVersion, *deployed: int) -> None:
        self.topic: dict[bytes, bytes] = {}
        self.position = 0
        self.generation: str | None = None
        self.restart(current, *deployed)

    def restart(self, current: PipelineVersion, *deployed: int) -> None:
        self.features = PartitionFeatures(current, deployed, read_version)
        self.features.resume(self.generation)
        for key, value in self.topic.items():
            self.features.restore(key, value)
        self.position = self.features.begin(0, self.position if self.generation else None)
        self.start = self.features.catch_up_from(self.position)

    def change(self, current: PipelineVersion, *deployed: int) -> bool:
        """Another set of versions while the process runs; False when it must read the topic for that."""
        features = PartitionFeatures(current, deployed, read_version)
        adopted = features.adopt(self.features)
        if adopted:
            self.features = features
            self.start = self.features.catch_up_from(self.position)
        return adopted

    def handle(self, first: int, last: int) -> Derived:
        """Live records."""
        generation = self.features.generation
        derived = self.features.derive(entries(first, last), lambda vector: vector)
        self.position = last + 1
        return self._commit(derived, generation)

    def catch_up(self, last: int) -> Derived:
        """Records of the past, up to one of them or to the live position."""
        last = min(last, self.position - 1)
        past = entries(self.features.past_position, last)
        reached = self.position if last == self.position - 1 else None
        derived = self.features.derive_past(past, lambda vector: vector, reached)
        return self._commit(derived, derived.generation)

    def settle(self) -> None:
        """All that is left to do, one transaction after another."""
        while self.start is not None:
            self.catch_up(self.position)
            self.start = self.features.catch_up_from(self.position)

    def _commit(self, derived: Derived, generation: str | None) -> Derived:
        self.generation = generation
        self.features.apply(derived)
        for key, value in derived.changes:
            if value is None:
                self.topic.pop(key, None)
            else:
                self.topic[key] = value
        return derived

    def versions(self) -> set[bytes]:
        """The versions with state."""
        return {key.split(b"\x1f")[0] for key in self.topic if not key.endswith(b"definition")} - {b"cut"}

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
    assert partition.start is None
    assert offsets(partition.handle(0, 9)) == [0, 1, 2, 4, 5, 6, 8, 9]
    partition.restart(version(1))
    assert partition.start is None
    again = partition.handle(0, 12)
    assert offsets(again) == [10, 12]
    assert again.vectors[-1].values == [9.0, 12.0]


def test_a_changed_pipeline_replays_the_log_beside_live_records() -> None:
    """The new version's vectors exist for the whole past; meanwhile the old one's go on, up to the cut."""
    partition = Partition(version(1))
    partition.handle(0, 9)
    partition.restart(version(2, "5m"))
    assert partition.start == 0
    assert partition.features.generation == "v1>v2@0"
    past = partition.catch_up(4)
    assert [offsets(past), past.cut] == [[0, 1, 2, 4], None]
    live = partition.handle(10, 12)
    assert (offsets(live), live.vectors[-1].values) == ([10, 12], [9.0, 12.0])
    assert partition.generation == "v1>v2@5"
    last = partition.catch_up(12)
    assert (offsets(last), last.cut) == ([5, 6, 8, 9, 10, 12], 13)
    assert last.vectors[-1].values == [3.0, 12.0]  # the minutes 8, 9 and 10
    assert partition.generation == "v2"
    assert unpack_formatted(partition.topic[cut_key(2)]) == [13, 1]
    assert offsets(partition.handle(13, 14)) == [13, 14]
    partition.start = partition.features.catch_up_from(15)
    partition.settle()
    assert partition.versions() == {b"v2"}


def test_a_killed_replay_goes_on_where_its_last_transaction_was() -> None:
    """Days of replay must not begin again with each deployment of the service."""
    partition = Partition(version(1))
    partition.handle(0, 99)
    partition.restart(version(2, "5m"))
    partition.catch_up(39)
    partition.restart(version(2, "5m"))
    assert (partition.start, partition.features.published) == (40, 1)
    assert offsets(partition.handle(100, 101)) == [100, 101]
    assert offsets(partition.catch_up(42)) == [40, 41, 42]


def test_a_second_change_gives_up_the_replay_of_the_first() -> None:
    """Whoever mends a mistake at once must not wait for the mistake, nor find it in the state."""
    partition = Partition(version(1))
    partition.handle(0, 9)
    assert partition.change(version(2, "5m"))
    assert offsets(partition.catch_up(4)) == [0, 1, 2, 4]
    assert partition.versions() == {b"v1", b"v2"}
    assert partition.change(version(3, "2m"))
    assert (partition.start, partition.features.generation) == (0, "v1>v3@0")
    assert offsets(partition.handle(10, 10)) == [10]
    last = partition.catch_up(10)
    assert [offsets(last)[0], offsets(last)[-1], last.cut] == [0, 10, 11]
    partition.settle()
    assert partition.versions() == {b"v3"}


def test_a_running_process_takes_over_what_it_knows() -> None:
    """Reading a large state again at each change would hold live records up."""
    partition = Partition(version(1))
    partition.handle(0, 9)
    assert partition.change(version(2, "5m"), 1)
    partition.settle()
    assert partition.versions() == {b"v1", b"v2"}
    assert partition.change(version(2, "5m"))
    assert partition.start == 10
    assert not partition.change(version(2, "5m"), 1), "what is being removed can only be read again"
    partition.settle()
    assert partition.versions() == {b"v2"}
    assert not partition.change(version(2, "5m"), 1), "the definition of version 1 is on the topic alone"


def test_nothing_is_replayed_for_a_version_that_comes_before_the_first_record() -> None:
    """An empty log has no past, but the cut is still a transaction of its own."""
    partition = Partition(version(1))
    partition.generation = "v1"
    partition.restart(version(2))
    assert partition.start == 0
    assert partition.catch_up(0).cut == 0
    assert offsets(partition.handle(0, 2)) == [0, 1, 2]


def test_a_version_that_has_seen_all_still_needs_its_cut() -> None:
    """Killed between its last record and the cut, it must not join the live ones without being published."""
    partition = Partition(version(1))
    partition.handle(0, 9)
    partition.restart(version(2))
    derived = partition.features.derive_past(entries(0, 9), lambda vector: vector, None)
    partition._commit(derived, derived.generation)
    assert (derived.cut, partition.generation) == (None, "v1>v2@10")
    partition.restart(version(2))
    assert offsets(partition.handle(10, 12)) == [10, 12]
    last = partition.catch_up(12)
    assert (offsets(last), last.cut) == ([10, 12], 13)


def test_offsets_without_records_are_no_past() -> None:
    """Each transaction of ingest leaves a marker: not every restart may read the log again."""
    partition = Partition(version(2), 1)
    partition.handle(0, 9)
    partition.position = 12
    partition.restart(version(2))
    assert partition.start == 12
    partition.settle()
    partition.restart(version(2))
    assert partition.start is None


def test_a_deployed_version_is_kept_up() -> None:
    """While the old model serves, its windows must go on filling, or its predictions rot."""
    old, new = version(1), version(2, "5m")
    partition = Partition(old)
    partition.handle(0, 9)
    partition.restart(new, 1)
    assert partition.features.generation == "v1>v1,v2@0"
    assert offsets(partition.catch_up(7)) == [0, 1, 2, 4, 5, 6]
    assert offsets(partition.handle(10, 12)) == [10, 12]
    assert partition.served(old, 13) == [10.0, 0.0]
    assert offsets(partition.catch_up(12)) == [8, 9, 10, 12]
    assert offsets(partition.handle(13, 14)) == [13, 14]
    assert partition.served(old, 15) == [12.0, 0.0]
    assert partition.versions() == {b"v1", b"v2"}
    assert partition.generation == "v1,v2"
    partition.restart(new)
    partition.settle()
    assert offsets(partition.handle(15, 16)) == [16]
    assert partition.versions() == {b"v2"}


def test_a_version_can_be_deployed_again() -> None:
    """A rollback to a model of an older version must find its state, rebuilt from the log."""
    old, new = version(1), version(2, "5m")
    partition = Partition(old)
    partition.handle(0, 9)
    partition.restart(new)
    partition.settle()
    assert partition.versions() == {b"v2"}
    partition.restart(new, 1)
    assert not partition.features.unknown
    assert offsets(partition.handle(10, 10)) == [10]
    assert partition.catch_up(10).vectors == []
    assert partition.served(old, 11) == [9.0, 0.0]
    assert partition.generation == "v1,v2"


def test_a_deployed_version_without_a_definition_is_told() -> None:
    """A model whose features nobody can compute must not go unnoticed."""
    partition = Partition(version(3), 2)
    assert partition.features.unknown == {2}
    assert partition.features.generation == "v2,v3"
    assert partition.start is None


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


def test_a_replay_is_seen_to_move_until_it_has_seen_what_live_records_have() -> None:
    """On call must tell a replay from a service that hangs."""
    partition = Partition(version(1))
    partition.handle(0, 99)
    assert partition.features.replay == (100, 100)
    partition.restart(version(2, "5h"))
    assert partition.features.replay == (0, 100)
    partition.catch_up(39)
    assert partition.features.replay == (40, 100)
    partition.handle(100, 119)
    assert partition.features.replay == (40, 120)
    partition.restart(version(2, "5h"))
    assert partition.features.replay == (40, 120)
    partition.catch_up(120)
    assert partition.features.replay == (120, 120)


@pytest.mark.parametrize(
    ("generation", "version"),
    [("v7", 7), ("v3,v12", 12), ("v3>v3,v4@90", 3), ("v2>v9@0", 2), ("", None), ("1", None), ("v1,", None)],
)
def test_a_committed_generation_says_whose_vectors_are_published(
    generation: str, version: int | None
) -> None:
    """Without it a restart in mid-replay would let the new version's vectors begin at a place of chance."""
    assert published_by(generation) == version


def damaged(partition: Partition, ending: bytes, value: bytes) -> None:
    (key,) = [key for key in partition.topic if ending in key and key.startswith(b"v1")]
    partition.topic[key] = value


DAMAGES = [
    (b"observations", b"\xc1 no MessagePack"),
    (b"observations", msgspec.msgpack.encode([7, [1], [1]])),
    (b"clock", msgspec.msgpack.encode([1, 5, 5, 10])),
    (b"clock", b"\xc1"),
    (b"pending", msgspec.msgpack.encode([1, [], []])),
]


@pytest.mark.parametrize(("ending", "value"), DAMAGES)
def test_state_that_cannot_be_read_is_computed_again(ending: bytes, value: bytes) -> None:
    """Of an older, newer or damaged format: the same state as before, no vector twice, no crash loop."""
    whole = Partition(version(1))
    whole.handle(0, 14)
    partition = Partition(version(1))
    partition.handle(0, 9)
    damaged(partition, ending, value)
    partition.restart(version(1))
    assert partition.features.begin(0, 10) == 0
    (reason,) = partition.features.rebuilds.values()
    assert reason
    assert partition.features.replay == (0, 10)
    assert offsets(partition.handle(0, 4)) == []
    assert offsets(partition.handle(5, 12)) == [10, 12]
    assert partition.features.rebuilds == {}
    assert offsets(partition.handle(13, 14)) == [13, 14]
    assert served(partition) == served(whole)
    partition.restart(version(1))
    assert partition.features.begin(0, 15) == 15


def test_what_a_later_entry_replaced_is_no_damage() -> None:
    """The topic keeps old entries until it is compacted: each start would compute the state again."""
    partition = Partition(version(1))
    partition.handle(0, 9)
    (key,) = [key for key in partition.topic if b"observations" in key]
    features = PartitionFeatures(version(1), (), read_version)
    for broken in (key, b"v1\x1fclock", b"v1\x1fnonsense"):
        features.restore(broken, b"\xc1")
    for entry in partition.topic.items():
        features.restore(*entry)
    features.restore(b"v1\x1fnonsense", None)
    assert features.begin(0, 10) == 10
    assert features.rebuilds == {}


def test_until_it_is_computed_the_topic_keeps_what_it_had() -> None:
    """Serving must not answer from windows that are half filled, also when the process is killed."""
    partition = Partition(version(1))
    partition.handle(0, 9)
    before = partition.served(version(1), 10)
    damaged(partition, b"pending", b"\xc1")
    for _ in range(2):
        partition.restart(version(1))
        assert partition.features.begin(0, 6) == 0
        assert offsets(partition.handle(0, 4)) == []
        groups = {key: value for key, value in partition.topic.items() if b"observations" in key}
        state = version(1).compiled.new_state(1)
        for key, value in groups.items():
            state.load(key, value)
        moment = START + timedelta(minutes=10) - datetime(1970, 1, 1, tzinfo=UTC)
        fields = {"shop": "a", "size": 0.0}
        assert version(1).compiled.vector(fields, moment // timedelta(microseconds=1), state) == before


def test_entries_that_do_not_come_again_are_removed() -> None:
    """A leftover of the old state would make every later start compute it again."""
    partition = Partition(version(1))
    partition.handle(0, 9)
    leftover = b"v1\x1fpending\x1f" + (99).to_bytes(8, "big")
    partition.topic[leftover] = msgspec.msgpack.encode([1, [], []])
    partition.restart(version(1))
    partition.features.begin(0, 10)
    partition.handle(0, 10)
    assert leftover not in partition.topic


def test_a_state_without_its_clock_is_not_believed() -> None:
    """Else every record would be counted a second time."""
    partition = Partition(version(1))
    partition.handle(0, 9)
    del partition.topic[b"v1\x1fclock"]
    partition.restart(version(1))
    assert partition.features.begin(0, 10) == 0
    assert offsets(partition.handle(0, 12)) == [10, 12]


def test_a_log_without_its_beginning_cannot_give_the_state_again() -> None:
    """Windows that silently hold too little are worse than a stop that says what to do."""
    partition = Partition(version(1))
    partition.handle(0, 9)
    damaged(partition, b"clock", b"\xc1")
    partition.restart(version(1))
    with pytest.raises(LogIncompleteError, match="version 1"):
        partition.features.begin(3, 10)
    partition.features = PartitionFeatures(version(1), (), read_version, accept_partial=True)
    for key, value in partition.topic.items():
        partition.features.restore(key, value)
    assert partition.features.begin(3, 10) == 3
    assert offsets(partition.handle(3, 12)) == [10, 12]


def test_a_damaged_definition_leaves_its_version_unknown() -> None:
    partition = Partition(version(1))
    partition.handle(0, 9)
    partition.topic[b"v1\x1fdefinition"] = b"{}"
    partition.restart(version(2, "5m"), 1)
    assert partition.features.unknown == {1}
    partition.topic[b"v1\x1fdefinition"] = b"{}"
    partition.restart(version(1))
    partition.handle(10, 10)
    assert partition.topic[b"v1\x1fdefinition"] == version(1).definition


def served(partition: Partition) -> dict[bytes, bytes]:
    """What a restart or serving would read, but for the cuts into blocks."""
    return {key: value for key, value in partition.topic.items() if b"pending" not in key}
