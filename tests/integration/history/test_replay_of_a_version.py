"""A changed pipeline replays its log beside live records: to the bytes of streaming, whatever is killed."""

import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from aiokafka import TopicPartition
from everloop.changes import plan_apply
from everloop.history.log import run
from everloop.lag import lag_by_group
from everloop.replays import Replay, replays_under_way
from everloop_features import compile as compile_features
from everloop_features.packing import (
    CLOCK,
    DEFINITION,
    PENDING,
    SETTLED,
    cut_key,
    split_key,
    unpack_formatted,
    version_of,
)
from everloop_kernel.kafka import plain_producer
from everloop_kernel.kafka_reading import read_to_end
from everloop_schemas.pipeline import load
from integration.history.history_rig import PIPELINE, Rig, wait_for

pytestmark = pytest.mark.integration

START = datetime(2020, 1, 1, tzinfo=UTC)
ROWS = 2_000
HISTORY, LIVE = 1_200, 1_700
"""A change comes at the first row; rows up to the second one come while it is replayed."""
FEW = 600
NEW = PIPELINE.replace("n: count(window='1h'", "n: count(window='5h'").replace("size / 3", "size / 7")


def records(partition: int) -> list[dict[str, Any]]:
    """Accepted records of one partition; labels follow, a few records come late."""
    chance, found = random.Random(partition), []
    for number in range(ROWS):
        at = START + timedelta(minutes=number)
        event_time = at - timedelta(minutes=chance.choice([0, 0, 90]))
        times = {"event_time": event_time.isoformat(), "known_at": at.isoformat()}
        shop = f"{partition}-{chance.randrange(3)}"
        record: dict[str, Any] = {
            "kind": "observation",
            "id": f"{partition}-{number}",
            "source": "s",
            **times,
        }
        record["fields"] = {"shop": shop, "size": chance.choice([None, chance.uniform(0, 9)])}
        if number % 3 == 2:
            record |= {"kind": "label", "id": f"{partition}-{number - 1}"}
            record["fields"] = {"shop": found[-1]["fields"]["shop"], "gain": chance.uniform(-1, 1)}
        found.append(record)
    return found


@dataclass(frozen=True)
class Killed:
    """What there was when the service was killed in mid-replay."""

    shown: list[Replay]
    done: int
    cuts: list[list[Any]]


LOGS = [records(partition) for partition in range(2)]
OBSERVATIONS = sum(record["kind"] == "observation" for log in LOGS for record in log)


async def publish(rig: Rig, name: str, first: int, last: int) -> None:
    """The same offsets for every pipeline: straight into the log, without transactions."""
    async with plain_producer(rig.kafka) as producer:
        for partition, log in enumerate(LOGS):
            for record in log[first:last]:
                key = record["fields"]["shop"].encode()
                await producer.send(
                    f"ingest-record-accepted-v1.{name}", json.dumps(record).encode(), key, partition
                )
        await producer.flush()


async def read(rig: Rig, topic: str, partitions: Iterable[int] = (0, 1)) -> list[Any]:
    found = []
    for partition in partitions:
        found += [r async for page in read_to_end(rig.kafka, TopicPartition(topic, partition)) for r in page]
    return found


async def vectors(rig: Rig, name: str, version: int) -> list[bytes]:
    values = [record.value for record in await read(rig, f"feature-vector-computed-v1.{name}")]
    return [value for value in values if b'"pipeline_version":%d,' % version in value]


async def state(rig: Rig, name: str, version: int) -> list[tuple[dict[bytes, bytes], Any]]:
    """By partition, the bytes of every group, and what waits for labels (transactions cut it into blocks)."""
    compiled = compile_features(rig.definitions[name][version])
    found = []
    for partition in range(2):
        loaded, kept = compiled.new_state(version), {}
        for record in await read(rig, f"feature-state-changed-v1.{name}", [partition]):
            if version_of(record.key) != version:
                continue
            loaded.load(record.key, record.value)
            if split_key(record.key)[0] not in (CLOCK, DEFINITION, PENDING, SETTLED):
                kept[record.key] = record.value
        oldest = loaded.known_clock_us - compiled.pending_us
        waiting = {key: one for key, one in loaded.pending.observations.items() if one.known_us >= oldest}
        found.append(({key: value for key, value in kept.items() if value is not None}, waiting))
    return found


def groups(rig: Rig, name: str, version: int) -> list[dict[bytes, bytes]]:
    return [each for each, _ in run(state(rig, name, version)) if each]


async def cuts(rig: Rig, name: str) -> list[list[Any]]:
    """What is recorded of version 2 on each partition: where its vectors begin, and whose end there."""
    records = await read(rig, f"feature-state-changed-v1.{name}")
    return [unpack_formatted(record.value) for record in records if record.key == cut_key(2)]


def behind(rig: Rig) -> int:
    return sum(run(lag_by_group(rig.kafka, ["everloop-feature"])).values())


def counted(rig: Rig, name: str, version: int) -> int:
    return len(run(vectors(rig, name, version)))


def observations(rows: int) -> int:
    """How many there are among the first so many rows of each partition."""
    return sum(record["kind"] == "observation" for log in LOGS for record in log[:rows])


def restart(rig: Rig, **settings: str) -> None:
    if "feature" in rig.processes:
        rig.end("feature")
    rig.start("feature", **settings)
    rig.wait_ready("feature")


@pytest.fixture(scope="module")
def killed(rig: Rig) -> Killed:
    """Two changed pipelines, one changed again at once; the service killed in mid-replay, started again."""
    for name, version in (("fresh", 2), ("steady", 1), ("changed", 1), ("mended", 1)):
        rig.define(name, NEW if version == 2 else PIPELINE, version)
    for name, rows in (("fresh", ROWS), ("steady", LIVE), ("changed", HISTORY), ("mended", FEW)):
        run(publish(rig, name, 0, rows))
    wait_for(lambda: counted(rig, "changed", 1) == observations(HISTORY), 60, rig.log("feature"))
    wait_for(lambda: counted(rig, "mended", 1) == observations(FEW), 60, rig.log("feature"))

    # slices of 50 rows, each followed by a rest that is 49 times as long
    restart(rig, EVERLOOP_FEATURE_MAX_RECORDS="50", EVERLOOP_FEATURE_REPLAY_SHARE="0.02")
    rig.define("mended", NEW.replace("5h", "2h"), version=2)
    wait_for(lambda: counted(rig, "mended", 2) > 0, 60, rig.log("feature"))
    rig.define("mended", NEW, version=3)
    rig.define("changed", NEW, version=2)
    wait_for(lambda: counted(rig, "changed", 2) > 0, 60, rig.log("feature"))
    run(publish(rig, "changed", HISTORY, LIVE))
    wait_for(lambda: counted(rig, "changed", 1) == observations(LIVE), 60, rig.log("feature"))
    shown = replays_under_way(rig.url("feature"))
    rig.kill("feature")
    found = Killed(shown, counted(rig, "changed", 2), run(cuts(rig, "changed")))
    restart(rig, EVERLOOP_FEATURE_REPLAY_SHARE="1")
    return found


def test_a_version_replays_beside_live_records_and_takes_over_at_a_cut(rig: Rig, killed: Killed) -> None:
    """Otherwise a change stops production, or a model trained after it has seen features nobody computes."""
    assert 0 < killed.done < observations(HISTORY), "live records waited for the replay"
    assert killed.cuts == []
    wait_for(lambda: counted(rig, "changed", 2) == observations(LIVE), 60, rig.log("feature"))
    metrics = httpx.get(f"{rig.url('feature')}/metrics").text
    (again,) = re.findall(r'everloop_feature_vectors_total\{pipeline="changed"\} (\S+)', metrics)
    went_on = observations(LIVE) - killed.done
    assert float(again) == went_on, "the replay began again instead of going on where it was"
    wait_for(lambda: len(run(cuts(rig, "changed"))) == 2, 20, "the cut is not recorded")
    assert run(cuts(rig, "changed")) == [[LIVE, 1], [LIVE, 1]]

    run(publish(rig, "changed", LIVE, ROWS))
    wait_for(lambda: counted(rig, "changed", 2) == OBSERVATIONS, 60, rig.log("feature"))
    wait_for(lambda: counted(rig, "fresh", 2) == OBSERVATIONS, 60, rig.log("feature"))
    wait_for(lambda: counted(rig, "steady", 1) == observations(LIVE), 60, rig.log("feature"))
    assert run(vectors(rig, "changed", 2)) == run(vectors(rig, "fresh", 2))
    assert run(vectors(rig, "changed", 1)) == run(vectors(rig, "steady", 1))
    wait_for(lambda: not behind(rig), 60, "the labels after the last observation are not in the state")
    assert run(state(rig, "changed", 2)) == run(state(rig, "fresh", 2))
    wait_for(lambda: not groups(rig, "changed", 1), 20, "the state of version 1 is still there")


def test_a_second_change_gives_up_the_first_replay(rig: Rig, killed: Killed) -> None:
    """Whoever mends a mistake at once gets the mended version, and nothing of the mistake in the state."""
    wait_for(lambda: counted(rig, "mended", 3) == observations(FEW), 60, rig.log("feature"))
    run(publish(rig, "mended", FEW, FEW + 100))
    wait_for(lambda: counted(rig, "mended", 3) == observations(FEW + 100), 60, rig.log("feature"))
    assert counted(rig, "mended", 1) == observations(FEW)
    assert counted(rig, "mended", 2) < observations(FEW)
    wait_for(lambda: not groups(rig, "mended", 2), 20, "the state of the mistake is still there")


def test_a_replay_shows_how_far_it_is(rig: Rig, killed: Killed) -> None:
    """Whoever waits for a version must see that it moves, and when it is over."""
    (changed,) = (one for one in killed.shown if one.pipeline == "changed")
    assert 0 < changed.position < changed.target <= 2 * LIVE
    wait_for(lambda: not replays_under_way(rig.url("feature")), 60, rig.log("feature"))


def test_a_dry_run_says_what_a_change_will_take(rig: Rig) -> None:
    """Nobody should learn of an hour's replay after it has begun."""
    rig.define("watched", PIPELINE, version=1)
    run(publish(rig, "watched", 0, FEW))
    with rig.client() as client:
        change = plan_apply(client, load(NEW.replace("NAME", "watched")))
    assert change.outcome == "changed"
    assert change.version == 2
    assert change.replay is not None
    assert change.replay.rows == 2 * FEW
    size = sum(len(json.dumps(record)) for log in LOGS for record in log[:FEW])
    assert change.replay.bytes == pytest.approx(size, rel=0.1)
