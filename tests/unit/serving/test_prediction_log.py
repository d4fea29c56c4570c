# ruff: noqa: ASYNC110, ASYNC240  # fakes have no event to wait for; files are small
"""Prediction events: once, in order, bounded, whatever Kafka does."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from everloop_kernel.stream_writer import Output
from everloop_serving.adapters.spool import DiskSpool
from everloop_serving.application.prediction_log import Numbered, Position, PredictionLog, Unreachable


class FakeKafka:
    """A broker that can be away, and that can die after it has committed but before it says so."""

    def __init__(self) -> None:
        self.away = False
        self.silent_commits = 0
        self.published: list[str] = []
        self.position: Position | None = None
        self.connections = 0

    async def connect(self) -> Position | None:
        await asyncio.sleep(0)
        if self.away:
            raise Unreachable("away")
        self.connections += 1
        return self.position

    async def publish(self, events: Sequence[Numbered]) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Unreachable("away")
        self.published += [each.event.value.decode() for each in events]
        self.position = events[-1].position
        if self.silent_commits:
            self.silent_commits -= 1
            raise Unreachable("the answer to the commit was lost")

    async def close(self) -> None:
        pass


def event(name: str | int) -> Output:
    return Output("t", 0, b"k", str(name).encode(), [("ce_id", b"1")])


def names(start: int, stop: int) -> list[str]:
    return [str(number) for number in range(start, stop)]


class Life:
    """One process's prediction log."""

    def __init__(
        self, kafka: FakeKafka, folder: Path, life: str = "a", limit: int = 1 << 20, most: int = 10_000
    ) -> None:
        self.spool = DiskSpool(folder, limit_bytes=limit)
        self.log = PredictionLog(kafka, self.spool, life=life, linger_seconds=0.001, most_in_memory=most)
        self.task = asyncio.create_task(self.log.run())

    def add(self, start: int, stop: int) -> None:
        for number in range(start, stop):
            self.log.append(event(number))

    async def stop(self) -> None:
        self.log.stop()
        await asyncio.wait_for(self.task, 10)


async def until(condition, seconds: float = 8.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_events_are_published_in_order(tmp_path: Path) -> None:
    """The usual case."""
    kafka = FakeKafka()
    life = Life(kafka, tmp_path)
    life.add(0, 12_000 // 2)
    await until(lambda: len(kafka.published) == 6000)
    life.add(6000, 6100)
    await life.stop()
    assert kafka.published == names(0, 6100)
    assert life.spool.size_bytes == 0


async def test_events_of_an_outage_are_spooled_and_published_once_afterwards(tmp_path: Path) -> None:
    """An outage of Kafka must cost no prediction and double none."""
    kafka = FakeKafka()
    life = Life(kafka, tmp_path)
    life.add(0, 10)
    await until(lambda: len(kafka.published) == 10)
    kafka.away = True
    life.add(10, 300)
    await until(lambda: life.spool.size_bytes > 0)
    life.add(300, 400)
    kafka.away = False
    await until(lambda: len(kafka.published) == 400)
    await life.stop()
    assert kafka.published == names(0, 400)
    assert life.spool.size_bytes == 0
    assert not list(tmp_path.glob("*.spool"))


async def test_a_commit_whose_answer_was_lost_is_not_repeated(tmp_path: Path) -> None:
    """The worst moment for a broker to die is between its commit and its answer."""
    kafka = FakeKafka()
    kafka.silent_commits = 2
    life = Life(kafka, tmp_path)
    life.add(0, 50)
    await until(lambda: len(kafka.published) >= 50)
    life.add(50, 100)
    await until(lambda: len(kafka.published) >= 100)
    await life.stop()
    assert kafka.published == names(0, 100)


async def test_a_process_that_stops_without_kafka_leaves_its_events_to_the_next(tmp_path: Path) -> None:
    """A restart during an outage must not lose what was answered before it."""
    kafka = FakeKafka()
    kafka.away = True
    first = Life(kafka, tmp_path, "first")
    first.add(0, 20)
    await first.stop()
    second = Life(kafka, tmp_path, "second")
    second.add(20, 40)
    await until(lambda: second.log.queued == 0)
    kafka.away = False
    second.add(40, 60)
    await until(lambda: len(kafka.published) == 60)
    await second.stop()
    assert kafka.published == names(0, 60)


async def test_a_spool_that_was_published_but_not_deleted_is_not_published_again(tmp_path: Path) -> None:
    """A process killed right after its commit."""
    kafka = FakeKafka()
    spool = DiskSpool(tmp_path, limit_bytes=1 << 20)
    spool.append([Numbered(Position("old", number + 1), event(number)) for number in range(10)])
    kafka.published, kafka.position = names(0, 7), Position("old", 7)
    life = Life(kafka, tmp_path, "new")
    life.add(10, 12)
    await until(lambda: len(kafka.published) == 12)
    await life.stop()
    assert kafka.published == names(0, 12)


async def test_a_full_spool_drops_and_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disk must not fill up, and a loss must not be silent."""
    kafka = FakeKafka()
    kafka.away = True
    life = Life(kafka, tmp_path, limit=3000)
    life.add(0, 200)
    await until(lambda: life.log.queued == 0)
    kafka.away = False
    life.add(200, 201)
    await until(lambda: kafka.published[-1:] == ["200"])
    await life.stop()
    kept = kafka.published[:-1]
    assert 10 < len(kept) < 200
    assert kept == names(0, len(kept))
    assert f"{200 - len(kept)} prediction events are lost: the spool is full" in caplog.text


async def test_a_full_memory_and_a_giant_event_are_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One giant event would block every event behind it."""
    kafka = FakeKafka()
    life = Life(kafka, tmp_path, most=5)
    life.log.append(Output("t", 0, b"k", b"x" * (1 << 21), []))
    life.add(0, 8)
    await life.stop()
    assert kafka.published == names(0, 5)
    assert "are lost" in caplog.text


async def test_nothing_is_asked_of_kafka_while_there_is_nothing_to_say(tmp_path: Path) -> None:
    """An idle serving must not cost CPU."""
    kafka = FakeKafka()
    life = Life(kafka, tmp_path)
    await asyncio.sleep(0.1)
    await life.stop()
    assert kafka.connections == 0


def test_a_torn_segment_is_read_up_to_the_tear(tmp_path: Path) -> None:
    """A machine that loses power leaves half a frame."""
    events = [Numbered(Position("a", number), event(number)) for number in range(5)]
    spool = DiskSpool(tmp_path, limit_bytes=1 << 20)
    assert spool.append(events) == 5
    [segment] = tmp_path.glob("*.spool")
    segment.write_bytes(segment.read_bytes()[:-3])
    again = DiskSpool(tmp_path, limit_bytes=1 << 20)
    assert again.peek(10) == events[:4]
    again.append(events[4:])
    again.drop(4)
    assert again.peek(10) == events[4:]
    again.drop(1)
    assert again.size_bytes == 0
    assert again.peek(10) == []


def test_a_disk_that_cannot_be_written_stores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC in the middle of a frame must not hide the frames before it."""
    spool = DiskSpool(tmp_path, limit_bytes=1 << 20)
    first = [Numbered(Position("a", 1), event(1))]
    assert spool.append(first) == 1
    monkeypatch.setattr("os.fsync", _full)
    assert spool.append([Numbered(Position("a", 2), event(2))]) == 0
    monkeypatch.undo()
    assert DiskSpool(tmp_path, limit_bytes=1 << 20).peek(10) == first


def _full(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")
