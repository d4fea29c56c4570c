"""State: windows, late records, labels that come early or late, expiry, and the bytes of the topic."""

from typing import Any

import msgspec
import pytest
from everloop_features import Compiled, Overlay, State, StateFormatError, version_of
from everloop_features import compile as compile_features
from everloop_schemas.pipeline import Pipeline

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 15_000 * DAY
"""A multiple of every pane used here."""


def compiled(**features: str) -> Compiled:
    definition = {
        "pipeline": "shops",
        "partition_by": ["shop"],
        "observation": {
            "event_time": "at",
            "fields": {
                "shop": {"type": "category"},
                "kind": {"type": "category"},
                "size": {"type": "number"},
            },
        },
        "label": {
            "type": "binary",
            "fields": {"gain": {"type": "number"}},
            "value": {"won": "gain > 0"},
            "expected_after": "3d",
        },
        "features": features,
    }
    result = compile_features(Pipeline.model_validate(definition))
    assert isinstance(result, Compiled), result
    return result


class Log:
    """A state that is written and read back between records, as by a task that always restarts."""

    def __init__(self, features: Compiled, *, restarts: bool = True) -> None:
        self.features = features
        self.restarts = restarts
        self.topic: dict[bytes, bytes] = {}
        self.tombstones: list[bytes] = []
        self.state = features.new_state(1)

    def observe(self, at: int, known: int | None = None, record_id: str = "r", **fields: Any) -> None:
        overlay = self.state.begin()
        overlay.observe(
            record_id, {"shop": "a", "kind": "x", "size": 1.0, **fields}, at, at if known is None else known
        )
        self._commit(overlay)

    def label(self, at: int, known: int | None = None, record_id: str = "r", **fields: Any) -> None:
        overlay = self.state.begin()
        overlay.absorb_label(
            record_id, {"shop": "a", "gain": 1.0, **fields}, at, at if known is None else known
        )
        self._commit(overlay)

    def vector(self, at: int, **fields: Any) -> list[Any]:
        return self.features.vector({"shop": "a", "kind": "x", **fields}, at, self.state)

    def _commit(self, overlay: Overlay) -> None:
        changes = overlay.changes()
        self.state.merge(overlay)
        for key, value in changes:
            if value is None:
                self.topic.pop(key, None)
                self.tombstones.append(key)
            else:
                self.topic[key] = value
        if self.restarts:
            self.state = restored(self.features, self.topic)


def restored(features: Compiled, topic: dict[bytes, bytes]) -> State:
    state = features.new_state(1)
    for key, value in topic.items():
        assert state.load(key, value)
    return state


ALL = {
    "a": "count(window='32h', by=[shop])",
    "b": "sum(size, window='32h', by=[shop])",
    "c": "mean(size, window='32h', by=[shop])",
    "d": "min(size, window='32h', by=[shop])",
    "e": "max(size, window='32h', by=[shop])",
    "f": "last(kind, window='32h', by=[shop])",
}


def test_empty_windows() -> None:
    """No records is a count of nothing, and not a mean of nothing."""
    log = Log(compiled(**ALL))
    assert log.vector(START) == [0.0, 0.0, None, None, None, None]
    log.observe(START)
    assert log.vector(START + 100 * HOUR) == [0.0, 0.0, None, None, None, None]
    assert log.vector(START, shop=None) == [None] * 6


def test_every_aggregate() -> None:
    """What a window holds is what the records said, without the vector's own record."""
    log = Log(compiled(**ALL))
    for hours, size, kind in ((0, 2.5, "x"), (1, None, "y"), (2, -1.0, None)):
        log.observe(START + hours * HOUR, size=size, kind=kind)
    assert log.vector(START + 3 * HOUR) == [3.0, 1.5, 0.75, -1.0, 2.5, "y"]


def test_a_window_ends_at_a_pane_and_last_is_exact() -> None:
    """A window may miss up to a 32nd of itself, never hold anything older; `last` is exact."""
    log = Log(compiled(**ALL))
    log.observe(START + HOUR // 2)
    assert log.vector(START + 32 * HOUR - 1)[0] == 1.0
    assert log.vector(START + 32 * HOUR)[::5] == [0.0, "x"]
    assert log.vector(START + 32 * HOUR + HOUR // 2 - 1)[5] == "x"
    assert log.vector(START + 32 * HOUR + HOUR // 2)[5] is None


def test_a_late_vector_does_not_see_later_panes() -> None:
    """An observation of yesterday is described by yesterday, though today's records came first."""
    log = Log(compiled(**ALL))
    log.observe(START, kind="old")
    log.observe(START + 10 * HOUR, kind="new")
    assert log.vector(START + 5 * HOUR)[::5] == [1.0, "old"]
    log.observe(START + 4 * HOUR, kind="late")
    assert log.vector(START + 5 * HOUR)[::5] == [2.0, "late"]
    assert log.vector(START + 10 * HOUR)[::5] == [3.0, "new"]


def test_groups_are_kept_apart() -> None:
    """One key's records must not leak into another's."""
    log = Log(compiled(a="count(window='1h', by=[shop, kind])", b="count(window='1h', by=[shop])"))
    log.observe(START, kind="x")
    log.observe(START, kind="y")
    log.observe(START, shop="b")
    assert log.vector(START) == [1.0, 2.0]
    assert sorted(key.split(b"\x1f", 2)[1] for key in log.topic) == [
        b"clock",
        *[b"observations"] * 5,
        *[b"pending"] * 3,
    ]


def test_sums_do_not_depend_on_pane_order() -> None:
    """0.1 + 0.2 + 0.3 must be the same bits whichever pane came first."""
    log = Log(compiled(total="sum(size, window='32h', by=[shop])"))
    for hours, size in ((0, 1e16), (1, 1.0), (2, -1e16)):
        log.observe(START + hours * HOUR, size=size)
    assert log.vector(START + 3 * HOUR) == [1.0]


def test_a_sum_that_overflows_is_null() -> None:
    """An infinity in a vector would stop the stream."""
    log = Log(
        compiled(total="sum(size, window='32h', by=[shop])", average="mean(size, window='32h', by=[shop])")
    )
    for hours in (0, 0, 1):
        log.observe(START + hours * HOUR, size=1.7e308)
    assert log.vector(START + 2 * HOUR) == [None, None]


JOINED = "mean(won, window='32d', by=[shop, kind], over=labels)"


def test_labels_join_their_observation() -> None:
    """A label knows neither carrier nor kind: they come from its observation."""
    log = Log(compiled(a=JOINED, b="sum(gain, window='32d', by=[shop], over=labels)"))
    log.observe(START, record_id="r1", kind="x")
    log.observe(START, record_id="r2", kind="y")
    log.label(START + HOUR, record_id="r1", gain=-5.0)
    log.label(START + HOUR, record_id="r2", gain=3.0)
    assert log.vector(START + 2 * HOUR, kind="x") == [0.0, -2.0]
    assert log.vector(START + 2 * HOUR, kind="y") == [1.0, -2.0]


def test_a_label_before_its_observation_waits_for_it() -> None:
    """Two producers are not in step: the outcome must count once the observation is there, and once only."""
    log = Log(compiled(n="count(window='32d', by=[shop, kind], over=labels)"))
    log.label(START, record_id="r1")
    log.label(START, record_id="r1", gain=2.0)
    assert log.vector(START) == [0.0]
    log.observe(START, record_id="r1")
    assert log.vector(START) == [1.0]
    log.observe(START, record_id="r1")
    assert log.vector(START) == [1.0]


def test_pending_records_expire_by_pipeline_time() -> None:
    """Memory must not grow with the log; what expires does so at the same place in every replay."""
    log = Log(compiled(n="count(window='320d', by=[shop, kind], over=labels)"))
    log.observe(START, record_id="old")
    log.label(START, record_id="early")
    log.observe(START + 12 * DAY, record_id="x")
    log.label(START + 12 * DAY, record_id="old")
    assert log.vector(START + 13 * DAY) == [1.0]  # four times three days: still there
    log.observe(START + 13 * DAY, record_id="y")
    log.label(START + HOUR, record_id="old", known=START + HOUR)  # known long ago, but too late in the log
    log.observe(START + 13 * DAY, record_id="early")
    assert log.vector(START + 13 * DAY) == [1.0]
    assert [key.split(b"\x1f")[1] for key in log.tombstones] == [b"pending"] * 2
    assert {"old"}.isdisjoint(log.state.pending.observations)


def test_pending_records_expire_within_a_batch_too() -> None:
    """Whether a label still counts must not depend on where a transaction ended."""
    features = compiled(n="count(window='320d', by=[shop, kind], over=labels)")
    overlay = features.new_state(1).begin()
    fields, label = {"shop": "a", "kind": "x"}, {"shop": "a", "gain": 1.0}
    overlay.observe("old", fields, START, START)
    overlay.absorb_label("early", label, START, START)
    overlay.observe("x", fields, START, START + 13 * DAY)
    overlay.absorb_label("old", label, START, START + 13 * DAY)
    overlay.observe("early", fields, START, START + 13 * DAY)
    assert features.vector(fields, START, overlay) == [0.0]


@pytest.mark.parametrize("restarts", [True, False])
def test_groups_expire_at_fixed_event_times(*, restarts: bool) -> None:
    """A key nobody touches is dropped, at the same record in every replay, restart or not."""
    log = Log(compiled(n="count(window='32h', by=[shop])"), restarts=restarts)
    base = START // (16 * HOUR) * 16 * HOUR
    log.observe(base + 1)
    log.observe(base + 64 * HOUR, shop="b")
    log.observe(base + 79 * HOUR, shop="b")
    log.observe(base + 79 * HOUR + 1, shop="b")  # idle for longer than two windows, but no 16 hours are full
    assert log.vector(base + 2 * HOUR) == [1.0]
    log.observe(base + 80 * HOUR, shop="b")
    assert log.vector(base + 2 * HOUR) == [0.0]
    assert [key for key in log.topic if key.endswith(b"\xa1a")] == []
    assert len(log.tombstones) == 1


def test_an_abandoned_batch_leaves_nothing() -> None:
    """A transaction that fails is tried again: its first try must not count."""
    features = compiled(n="count(window='1h', by=[shop])", rate=JOINED)
    state = features.new_state(1)
    for _ in range(3):
        overlay = state.begin()
        overlay.observe("r", {"shop": "a", "kind": "x"}, START, START)
        overlay.absorb_label("r", {"shop": "a", "gain": 1.0}, START, START)
        assert features.vector({"shop": "a", "kind": "x"}, START, overlay) == [1.0, 1.0]
        assert features.vector({"shop": "a", "kind": "x"}, START, state) == [0.0, None]
    state.merge(overlay)
    assert features.vector({"shop": "a", "kind": "x"}, START, state) == [1.0, 1.0]


def test_the_bytes_are_the_documented_ones() -> None:
    """Other readers rely on the format; a change needs a new format number."""
    features = compiled(n="count(window='32s', by=[shop])", m="mean(size, window='64s', by=[shop])")
    overlay = features.new_state(3).begin()
    sizes = ((0, 2.5), (1, None), (5, 4.0))
    for seconds, size in sizes:
        overlay.observe("r", {"shop": "é", "size": size}, START + seconds * 1_000_000, START)
    pane = START // 1_000_000
    assert [(key, msgspec.msgpack.decode(value)) for key, value in overlay.changes()] == [
        (b"v3\x1fclock", [2, START + 5_000_000, START, 0]),
        (
            b"v3\x1fobservations\x1fshop\x1f" + msgspec.msgpack.encode(["é"]),
            [1, [pane, 1, 4], [1, 1, 1], [pane // 2, 2], [1, 1], [2.5, 4.0]],
        ),
        (
            b"v3\x1fpending\x1f" + bytes(8),
            [2, [["r", START, START + seconds * 1_000_000, 0, ["é", size]] for seconds, size in sizes], []],
        ),
    ]


def test_other_versions_are_left_alone() -> None:
    """While a changed pipeline replays, both versions' state lies on the topic."""
    features = compiled(n="count(window='1h', by=[shop])")
    overlay = features.new_state(3).begin()
    overlay.observe("r", {"shop": "a"}, START, START)
    state = features.new_state(4)
    for key, value in overlay.changes():
        assert version_of(key) == 3
        assert not state.load(key, value)
    assert features.vector({"shop": "a"}, START, state) == [0.0]
    assert version_of(b"something else") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"v1\x1fobservations\x1fshop\x1f\x91\xa1a", b"\xff"),
        (b"v1\x1fobservations\x1fshop\x1f\x91\xa1a", msgspec.msgpack.encode([2, [1], [1]])),
        (b"v1\x1fobservations\x1fshop\x1f\x91\xa1a", msgspec.msgpack.encode([1, [1]])),
        (b"v1\x1fobservations\x1fshop\x1f\x91\xa1a", msgspec.msgpack.encode([1, [1, 1], [1]])),
        (b"v1\x1fobservations\x1fshop\x1f\x91\xa1a", msgspec.msgpack.encode([1, [], []])),
        (b"v1\x1fobservations\x1fshop\x1f\x91\xa1a", msgspec.msgpack.encode([1, ["x"], [1]])),
        (b"v1\x1fobservations\x1fshop\x1f\xff", msgspec.msgpack.encode([1, [1], [1]])),
        (b"v1\x1fobservations\x1fkind\x1f\x91\xa1a", msgspec.msgpack.encode([1, [1], [1]])),
        (b"v1\x1fclock", msgspec.msgpack.encode([2, 5])),
        (b"v1\x1fclock", msgspec.msgpack.encode([1, 5, 5, 5])),
        (b"v1\x1fsettled", msgspec.msgpack.encode([2, 5])),
        (b"v1\x1fclock", msgspec.msgpack.encode({})),
        (b"v1\x1fpending\x1f12345678", msgspec.msgpack.encode([2, [["a"]], []])),
        (b"v1\x1fpending\x1f12345678", msgspec.msgpack.encode([2])),
        (b"v1\x1fpending\x1f12345678", msgspec.msgpack.encode([1, [["a", 5, []]], []])),
        (b"v1\x1fnonsense", b""),
    ],
)
def test_broken_state_is_refused(key: bytes, value: bytes) -> None:
    """State that cannot be read must stop the task with its reason, not become wrong vectors."""
    state = compiled(n="count(window='1h', by=[shop])").new_state(1)
    with pytest.raises(StateFormatError):
        state.load(key, value)
