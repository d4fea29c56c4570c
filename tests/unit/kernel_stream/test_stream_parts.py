import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from everloop_kernel.artifacts import CHUNK_BYTES, chunks
from everloop_kernel.dead_letters import (
    DeadLetter,
    DeadLetterLimit,
    DeadLetterLimitExceeded,
    StoredDeadLetter,
)
from everloop_kernel.exactly_once import Ledger, check
from everloop_kernel.settings import KafkaSettings, PlatformSettings
from everloop_kernel.stream_backlog import Backlog
from everloop_kernel.stream_batches import Pace
from everloop_kernel.stream_lane import Lane
from everloop_kernel.stream_task import LaneSettings
from everloop_kernel.stream_throttle import Throttle
from hypothesis import given
from hypothesis import strategies as st


def record(
    offset: int, value: bytes | None = b"v", headers: Any = (), key: bytes | None = b"k"
) -> ConsumerRecord:
    size = -1 if value is None else len(value)
    return ConsumerRecord("t", 0, offset, 0, 0, key, value, None, 1, size, tuple(headers))


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 30))
def test_a_backlog_gives_back_what_it_was_given_in_order(chunk_sizes: list[int], batch: int) -> None:
    """Offsets must never skip: the next batch begins where the last one ended."""
    backlog, given_offsets, taken = Backlog(batch), [], []
    offset = 0
    for size in chunk_sizes:
        chunk = [record(offset + n) for n in range(size)]
        offset += size
        given_offsets += [r.offset for r in chunk]
        backlog.put(chunk)
    while len(backlog):
        part = backlog.take()
        assert 0 < len(part) <= batch
        taken += [r.offset for r in part]
    assert taken == given_offsets
    assert backlog._bytes == 0


MEGABYTE = b"x" * 1_000_000


@pytest.mark.parametrize(
    "huge",
    [
        {"value": MEGABYTE},
        {"key": MEGABYTE},
        {"headers": [("h", MEGABYTE)]},
        {"headers": [("h" * 10**6, None)]},
    ],
)
def test_a_backlog_is_full_by_bytes_too(huge: Any) -> None:
    """A few huge records must not fill the memory, wherever they are huge."""
    backlog = Backlog(1000)
    backlog.put([record(n, **huge) for n in range(9)])
    assert backlog.is_full
    assert not backlog.is_low
    backlog.clear()
    assert (backlog.is_full, backlog.is_low, len(backlog)) == (False, True, 0)


def limit(count: int = 10, share: float = 0.5, recent: int = 100) -> DeadLetterLimit:
    platform = PlatformSettings(dead_letter_limit_count=count, dead_letter_limit_share=share)
    return DeadLetterLimit("g", platform, recent)


def dead(count: int) -> Sequence[DeadLetter]:
    return [DeadLetter(record(n), "bad", "it is bad") for n in range(count)]


def test_the_limit_needs_both_count_and_share() -> None:
    """One bad record among three is no reason to stop; nor are a thousand among a million."""
    limit().check(10, dead(10))
    limit(share=0.9).check(100, dead(80))
    with pytest.raises(DeadLetterLimitExceeded, match=r"11 of the last 20 records of g .* it is bad"):
        limit().check(20, dead(11))


def test_old_records_are_forgotten() -> None:
    """Yesterday's mishap must not stop today's stream."""
    found = limit()
    found.count(20, dead(10))
    for _ in range(11):
        found.count(10, [])
    found.check(10, dead(10))
    with pytest.raises(DeadLetterLimitExceeded):
        found.count(10, dead(10)) or found.check(1, dead(1)) or found.check(10, dead(100))


@given(
    st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=5),
    st.none() | st.binary(max_size=10),
)
def test_a_dead_letter_is_taken_apart_as_it_was_made(headers: Any, value: bytes | None) -> None:
    """Original bytes and headers come back exactly, even headers that are named like ours."""
    headers = [*headers, ("everloop-dlq-reason", b"mine")]
    out = DeadLetter(record(7, value, headers), "code", "a reason — in words").output("g")
    stored = StoredDeadLetter.read(record(3, out.value, out.headers, out.key), replayed=False)
    assert (list(stored.headers), stored.value, stored.key) == (headers, value, b"k")
    assert (stored.topic, stored.partition, stored.offset, stored.position) == ("t", 0, 7, 3)
    assert (stored.reason_code, stored.reason) == ("code", "a reason — in words")


def test_a_foreign_record_on_a_dead_letter_topic_is_shown_too() -> None:
    """`everloop dlq list` must not stumble over what somebody wrote there by hand."""
    stored = StoredDeadLetter.read(record(1, b"x"), replayed=False)
    assert (stored.reason_code, stored.offset, stored.value) == ("unknown", -1, b"x")
    odd = [("everloop-dlq-partition", b"many"), ("everloop-dlq-offset", None)]
    assert StoredDeadLetter.read(record(1, b"x", odd), replayed=False).partition == -1


def test_the_checker_tells_what_went_wrong() -> None:
    """A checker that cannot see a loss proves nothing."""
    assert check(["a", "b", "b"], ["b", "a"]).ok
    assert check(["a"], []).lost == ("a",)
    assert check(["a"], ["a", "a"]).doubled == ("a",)
    assert check(["a"], ["a", "x"]).unexpected == ("x",)
    assert check(["a", "p"], ["a"], poison={"p"}, dead=["p"]).ok
    assert check(["a", "p"], ["a", "p"], poison={"p"}, dead=["p"]).unexpected == ("p",)
    assert check(["a"], ["a"], poison={"p"}, dead=[]).not_dead == ("p",)
    assert check(["a"], ["a"], poison={"p"}, dead=["p", "p"]).not_dead == ("p",)
    assert check(["a"], [], dead=["a"]).wrongly_dead == ("a",)
    assert str(check(["a"], ["a"])) == "everything exactly once"


def test_the_ledger_forgets_only_what_was_cut_off(tmp_path: Path) -> None:
    """After a crash the ledger holds what was written before it."""
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.read() == []
    ledger.append(["a", "b"])
    ledger.append(["c"])
    with (tmp_path / "ledger").open("ab") as file:
        file.write(b"half a li")
    assert ledger.read() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="one line"):
        ledger.append(["a\nb"])


def test_chunks_are_small_enough_and_numbered() -> None:
    """A topic takes records of 2 MiB; an empty artifact is an artifact."""
    pieces = chunks(b"x" * (2 * CHUNK_BYTES + 1))
    assert [len(piece) for _, piece in pieces] == [CHUNK_BYTES, CHUNK_BYTES, 1]
    assert [dict(headers)["everloop-index"] for headers, _ in pieces] == [b"0", b"1", b"2"]
    assert len(chunks(b"")) == 1


async def resting_lane(rest_seconds: float, waiting: int) -> tuple[Lane, float]:
    """A lane whose last transaction asks for a rest, and how long it rested with so many records waiting."""
    platform, kafka = PlatformSettings(), KafkaSettings()
    limit = DeadLetterLimit("g", platform)
    settings = LaneSettings(kafka, "g", _no_task, limit, 10, 0.05, 1.0, 1.0, Throttle(1))
    lane = Lane(TopicPartition("t", 0), _NoSource(), settings)  # type: ignore[arg-type]
    lane.put([record(n) for n in range(waiting)])
    began = time.monotonic()
    lane._rested_at = began + rest_seconds
    await lane._rest()
    return lane, time.monotonic() - began


class _NoSource:
    def pause(self, partition: TopicPartition) -> None:
        del partition


async def _no_task(partition: TopicPartition) -> Any:
    raise AssertionError(partition)


async def test_few_records_wait_for_others_to_share_their_transaction() -> None:
    """A trickle must not cost the broker one transaction, eight writes to disk, a record."""
    lane, rested = await resting_lane(0.05, waiting=3)
    assert rested >= 0.05
    assert len(lane.backlog) == 3


async def test_a_full_transaction_does_not_wait() -> None:
    """A backlog must be worked off at full speed."""
    _, rested = await resting_lane(30.0, waiting=10)
    assert rested < 5


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_a_throttle_takes_a_share_of_the_time(share: float) -> None:
    """A share of nothing would wait for ever; one above all is a mistake."""
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        Throttle(share)


async def test_replays_take_turns_and_rest_in_proportion() -> None:
    """Two replays together must not take more of a process than one may."""
    throttle, slept, inside = Throttle(0.25), [], []

    async def slice_of(name: str) -> None:
        async with throttle.turn():
            slept.append(time.monotonic())
            inside.append(name)
            await asyncio.sleep(0)
            assert inside.pop() == name
            throttle.spent(0.05)

    await asyncio.gather(slice_of("a"), slice_of("b"))
    assert slept[1] - slept[0] >= 0.15


async def test_few_partitions_are_replayed_at_a_time() -> None:
    """A hundred pipelines changed at once must not hold a hundred readers."""
    throttle, held, most = Throttle(1), [], []

    async def replay(name: int) -> None:
        async with throttle.place():
            held.append(name)
            most.append(len(held))
            await asyncio.sleep(0)
            held.remove(name)

    await asyncio.gather(*map(replay, range(20)))
    assert (len(most), max(most)) == (20, 4)


def test_slow_records_make_small_batches() -> None:
    """Deriving holds the loop: long batches on other partitions let transactions run out of time."""
    pace, backlog = Pace(), Backlog(4000)
    backlog.put([record(0)] * 4000)
    assert pace.most is None
    pace.note(4000, 2.0)
    assert pace.most == 500
    assert len(backlog.take(pace.most)) == 500
    pace.note(1, 0.01)
    assert pace.most == 500
    pace.note(1, 1.0)
    assert pace.most == 50
    pace.note(4000, 0.04)
    assert len(backlog.take(pace.most)) == 3500
