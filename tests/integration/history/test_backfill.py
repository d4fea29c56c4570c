"""History from files into a pipeline's log, on real services: once, in order, from where it was left off."""

import csv
import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from everloop.client import Client
from everloop.errors import EverloopError
from everloop.history.log import run
from everloop.history.publishing import Progress, publish_history
from everloop.history.records import HistoryFiles, in_order
from everloop.history.tables import Table
from everloop_kernel.kafka_reading import read_to_end
from integration.history.history_rig import Rig, wait_for

pytestmark = pytest.mark.integration

START = datetime(2020, 1, 1, tzinfo=UTC)
ROWS = 6_000
COLUMNS = ("id", "sold_at", "shop", "size", "gain", "told_at")


def row(number: int) -> dict[str, Any]:
    chance = random.Random(number)
    sold = START + timedelta(minutes=number)
    told = sold + timedelta(minutes=chance.randrange(1, 300))
    values = (f"o{number}", sold.isoformat(), chance.choice("abcdef"), chance.uniform(0, 9))
    return dict(zip(COLUMNS, (*values, chance.uniform(-1, 1), told.isoformat()), strict=True))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> HistoryFiles:
    """A table in the order of its shops, as exports come, with the labels beside the observations."""
    path = tmp_path_factory.mktemp("files") / "sales.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(sorted(map(row, range(ROWS)), key=lambda one: one["shop"]))
    return HistoryFiles(Table(path), label_time="told_at")


@pytest.fixture(scope="module")
def client(rig: Rig):
    with rig.client() as found:
        yield found


async def log_of(rig: Rig, name: str) -> list[list[tuple[str, str, str]]]:
    """(kind, id, known_at) of each partition's records, in order."""
    found = []
    for partition in range(2):
        pages = read_to_end(rig.kafka, TopicPartition(f"ingest-record-accepted-v1.{name}", partition))
        records = [json.loads(record.value) async for page in pages for record in page]
        found.append([(one["kind"], one["id"], one["known_at"]) for one in records])
    return found


def wait_for_log(rig: Rig, name: str, count: int) -> list[list[tuple[str, str, str]]]:
    wait_for(lambda: sum(map(len, run(log_of(rig, name)))) >= count, 60, rig.log("ingest"))
    return run(log_of(rig, name))


def test_a_backfill_killed_on_its_way_goes_on_and_adds_nothing_twice(
    rig: Rig, client: Client, files: HistoryFiles, tmp_path: Path
) -> None:
    """An interrupted import must not be begun anew, nor leave doubles, nor break the order of time."""
    rig.define("imported")
    rig.known_to_ingest("imported")
    work = client.backfill("imported", files, source="history", folder=tmp_path)
    plan = work.check()
    assert (plan.checked.observations, plan.checked.labels, plan.checked.refused) == (ROWS, ROWS, 0)
    assert (plan.published, plan.log_has_others) == (0, False)
    assert sum(map(len, run(log_of(rig, "imported")))) == 0

    class KilledError(Exception):
        """Stands for the kill: the blocks before it are acknowledged, the file says so."""

    def die(count: int) -> None:
        if count >= 5_000:
            raise KilledError

    with pytest.raises(KilledError):
        work.send(tell=die)
    again = client.backfill("imported", files, source="history", folder=tmp_path)
    assert again.check().published == 5_000
    assert again.send() == 2 * ROWS - 5_000
    assert again.send() == 0
    log = wait_for_log(rig, "imported", 2 * ROWS)
    assert Counter(one[:2] for part in log for one in part).most_common(1)[0][1] == 1
    for part in log:
        assert [known for _, _, known in part] == sorted(known for _, _, known in part)


def test_what_was_sent_but_not_counted_is_sent_again_and_taken_once(
    rig: Rig, client: Client, files: HistoryFiles, tmp_path: Path
) -> None:
    """A kill between the broker's answer and the note of it must not double a block."""
    pipeline = rig.define("uncounted")
    rig.known_to_ingest("uncounted")
    client.backfill("uncounted", files, source="history", folder=tmp_path).send()
    progress = Progress(tmp_path, "uncounted", "an older note")
    progress.save(2 * ROWS - 3_000)
    records = in_order(files.records(pipeline))
    sent = run(publish_history(rig.kafka, pipeline, "history", records, progress=progress, rate=100_000))
    assert sent == 3_000
    rig_log = wait_for_log(rig, "uncounted", 2 * ROWS)
    with rig.client() as other:
        other.publish("uncounted", "observations", [{**last(), "id": "last"}], source="history")
    wait_for(lambda: sum(map(len, run(log_of(rig, "uncounted")))) > 2 * ROWS, 60)
    assert sum(map(len, run(log_of(rig, "uncounted")))) == sum(map(len, rig_log)) + 1


def last() -> dict[str, Any]:
    end = (START + timedelta(days=30)).isoformat()
    return {"sold_at": end, "known_at": end, "shop": row(ROWS - 1)["shop"], "size": 1.0}


def test_a_dry_run_tells_what_would_be_refused_and_sends_nothing(
    rig: Rig, client: Client, tmp_path: Path
) -> None:
    """The reasons must be known before a million rows stand in quarantine."""
    rig.define("checked")
    rig.known_to_ingest("checked")
    path = tmp_path / "sales.csv"
    path.write_text(
        "id,sold_at,shop,size\n1,2020-01-01T00:00:00Z,a,1\n2,2020-01-01T00:00:00Z,a,-1\n3,noon,a,1\n4,,a,1\n"
    )
    work = client.backfill("checked", HistoryFiles(Table(path)), source="history", folder=tmp_path)
    plan = work.check(rate=2)
    assert plan.checked.refused == 3
    assert plan.checked.reasons["observation", "size", "min"] == 1
    assert {one["row"] for one in plan.checked.examples} == {1, 2, 3}
    assert plan.seconds == 2.0
    assert run(log_of(rig, "checked")) == [[], []]


def test_a_source_that_may_not_replay_is_refused_at_once(
    rig: Rig, client: Client, files: HistoryFiles, tmp_path: Path
) -> None:
    """Otherwise every row of history would be known today."""
    rig.define("unnamed")
    with pytest.raises(EverloopError, match="may not say when"):
        client.backfill("unnamed", files, source="else", folder=tmp_path)
