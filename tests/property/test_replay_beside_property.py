"""A version that replays beside live records ends with the bytes of one that streamed from the beginning."""

from collections.abc import Iterable
from functools import partial
from random import Random
from typing import Any

from everloop_feature.domain.partition import Derived, PartitionFeatures, PipelineVersion
from everloop_features import Compiled, derive, replay
from hypothesis import given, settings
from hypothesis import strategies as st
from property.test_evaluator_property import Entry, bits, groups, logs, pipelines

Numbered = list[tuple[int, Entry]]
Shown = tuple[int, int, list[Any]]
"""A published vector: its pipeline version, its offset, the bits of its values."""


class Partition:
    """A log partition: topics and committed offset, and processes that work on it until they are killed."""

    def __init__(self, versions: list[Compiled], log: Numbered, chance: Random) -> None:
        self.versions = {number: PipelineVersion(number, b"v%d" % number, one) for number, one in
                         enumerate(versions, 1)}  # fmt: skip
        self.log, self.chance = log, chance
        self.topic: dict[bytes, bytes] = {}
        self.committed: tuple[int, str] | None = None
        self.vectors: list[Shown] = []
        self.cuts: dict[int, int] = {}
        self.damaged = False
        self.newest, self.deployed = 1, frozenset[int]()
        self.start_process()

    def start_process(self) -> None:
        self.features = self._made()
        self.features.resume(self.committed[1] if self.committed else None)
        for key, value in self.topic.items():
            self.features.restore(key, value)
        self.position = self.features.begin(0, self.committed[0] if self.committed else None)
        self.todo = self.features.catch_up_from(self.position)

    def act(self) -> None:
        """Records come, the replay goes on, the process is killed, a file is applied, state is damaged."""
        happening = self.chance.choice(["live", "live", "past", "past", "past", "kill", "change", "damage"])
        if happening == "live":
            self.live(self.chance.randrange(1, 9))
        elif happening == "past" and self.todo is not None:
            self.past(self.chance.choice([1, 3, 9, 27, 81]))
        elif happening == "kill":
            self.start_process()
        elif happening == "damage":
            self.damage()
            self.start_process()
        elif happening == "change":
            self.newest = min(self.newest + self.chance.randrange(2), len(self.versions))
            self.deployed = frozenset(n for n in range(1, self.newest + 1) if self.chance.random() < 0.4)
            self._changed()

    def damage(self) -> None:
        """One entry of the state cannot be read any more."""
        known = (b"definition", b"clock")
        found = [key for key in self.topic if key[:1] == b"v" and not key.endswith(known)]
        if found:
            self.damaged = True
            self.topic[self.chance.choice(found)] = b"\xc1"

    def live(self, most: int) -> None:
        batch = [entry for entry in self.log if entry[0] >= self.position][:most]
        if batch:
            seen, write = self.features.live_position, self._shown(self.features.published)
            unseen = [entry for entry in batch if entry[0] >= seen]
            after = batch[-1][0] + self.chance.choice([1, 2])  # a marker may have been passed
            self._transact(partial(self.features.derive, unseen, write), after, self.features.generation)

    def past(self, most: int) -> None:
        past = [entry for entry in self.log if self.todo <= entry[0] < self.position]
        batch = past[:most]
        reached = self.position if len(batch) == len(past) else None
        unseen = [entry for entry in batch if entry[0] >= self.features.past_position]
        derive = partial(self.features.derive_past, unseen, self._shown(self.newest), reached)
        done = self._transact(derive, self.position, None)
        if done.cut is not None:
            self.cuts[self.newest] = done.cut
        self.todo = (
            batch[-1][0] + 1 if batch and reached is None else self.features.catch_up_from(self.position)
        )

    def finish(self) -> None:
        while self.position < self.log[-1][0] + 1:
            self.live(1000)
        while self.todo is not None:
            self.past(1000)

    def _transact(self, derive: Any, after: int, generation: str | None) -> Derived[Shown]:
        """Some transactions are aborted: what they derived is derived again, and the same."""
        if self.chance.random() < 0.3:
            assert derive().changes == derive().changes
        derived = derive()
        self.position = after
        self.committed = after, derived.generation or generation or ""
        self.vectors += derived.vectors
        for key, value in derived.changes:
            self.topic.pop(key, None)
            if value is not None:
                self.topic[key] = value
        self.features.apply(derived)
        return derived

    def _changed(self) -> None:
        features = self._made()
        if features.adopt(self.features):
            self.features = features
            self.todo = self.features.catch_up_from(self.position)
        else:
            self.start_process()

    def _made(self) -> PartitionFeatures:
        read = lambda number, _: self.versions[number]  # noqa: E731
        return PartitionFeatures(self.versions[self.newest], self.deployed, read)

    @staticmethod
    def _shown(version: int) -> Any:
        return lambda vector: (version, vector.offset, bits(vector.values))


def streamed(compiled: Compiled, version: int, log: Numbered) -> tuple[list[Shown], dict[bytes, bytes]]:
    """Vectors and state of a version that was there from the start."""
    vectors = [(version, vector.offset, bits(vector.values)) for vector in replay(compiled, log)]
    undisturbed = compiled.new_state(version).begin()
    list(derive(compiled, log, undisturbed))
    return vectors, groups(undisturbed.changes())


def of(version: int, entries: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(key, value) for key, value in entries if key.startswith(b"v%d\x1f" % version)]


@settings(max_examples=100, deadline=None)
@given(st.lists(pipelines(), min_size=2, max_size=3), logs(), st.integers(0, 2**32))
def test_a_replay_beside_live_records_gives_the_bytes_of_streaming(
    versions: list[Compiled], entries: list[Entry], seed: int
) -> None:
    """Otherwise a model trained after a change has seen features that production never computes."""
    log, chance = [(2 * offset, entry) for offset, entry in enumerate(entries)], Random(seed)
    partition = Partition(versions, log, chance)
    for _ in range(chance.randrange(80)):
        partition.act()
    partition.finish()
    whole = {number: streamed(one, number, log) for number, one in enumerate(versions, 1)}
    for number in range(1, partition.newest + 1):
        mine = [shown for shown in partition.vectors if shown[0] == number]
        expected = whole[number][0]
        if number == partition.newest:
            assert mine == expected
        else:
            assert mine == expected[: len(mine)], "none twice, none left out, none after the end"
    wanted = {partition.newest, *partition.deployed} - partition.features.unknown
    for number in wanted:
        assert groups(of(number, partition.topic.items())) == whole[number][1]
    left = {key for key in partition.topic if key[:1] == b"v" and not key.endswith(b"definition")}
    assert {int(key[1 : key.index(b"\x1f")]) for key in left} <= wanted
    if not partition.damaged:  # the log is then read again by live records: a cut may come at its beginning
        _every_cut_divides(partition, log)


def _every_cut_divides(partition: Partition, log: Numbered) -> None:
    """Each live offset has one published version: up to the cut the old one, from there on the new one."""
    for version, cut in partition.cuts.items():
        ended = [offset for number, offset, _ in partition.vectors if number < version]
        assert all(offset < cut for offset in ended)
        before = {offset for number, offset, _ in partition.vectors if number == version and offset < cut}
        assert before == {offset for offset, entry in log if offset < cut and _is_observation(entry)}


def _is_observation(entry: Entry) -> bool:
    return entry.kind == "observation" and not entry.retraction
