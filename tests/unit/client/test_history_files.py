"""History in files, as the records that a producer would have sent."""

import json
import random
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from everloop.errors import EverloopError, UsageError
from everloop.history.checking import check_records
from everloop.history.publishing import Progress
from everloop.history.records import HistoryFiles, Timed, in_order
from everloop.history.tables import Table
from everloop_schemas.pipeline import load
from hypothesis import given
from hypothesis import strategies as st

PIPELINE = load("""
pipeline: p
partition_by: [shop]
observation:
  event_time: sold_at
  fields:
    shop: {type: category}
    size: {type: number, nullable: true}
    pieces: {type: integer, nullable: true}
    gift: {type: boolean, nullable: true}
label: {type: binary, fields: {gain: {type: number}}, value: {won: gain > 0}}
""")
NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
CSV = """id,sold_at,shop,size,pieces,gift,note
1,2020-01-01T12:00:00Z,007,1.5,3,true,x
2,2020-01-01T11:00:00Z,a,,,,y
3,2020-01-01T13:00:00Z,a,large,3.0,maybe,z
"""


def read(files: HistoryFiles) -> list[dict]:
    return [json.loads(record.value) for record in in_order(files.records(PIPELINE))]


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "sales.csv"
    path.write_text(CSV)
    return Table(path)


def test_a_csv_becomes_records_of_the_declared_types_in_order_of_time(csv_file) -> None:
    """A shop named 007 is no number, and what is no number goes to the contract as it stands."""
    early, noon, late = read(HistoryFiles(csv_file))
    assert early == {
        "id": "2",
        "sold_at": "2020-01-01T11:00:00Z",
        "known_at": "2020-01-01T11:00:00Z",
        "shop": "a",
    }
    assert (noon["shop"], noon["size"], noon["pieces"], noon["gift"]) == ("007", 1.5, 3, True)
    assert (late["size"], late["pieces"], late["gift"]) == ("large", "3.0", "maybe")
    assert HistoryFiles(csv_file).check(PIPELINE) == ("sales.csv: note",)


def test_parquet_and_csv_of_one_table_give_one_history(csv_file, tmp_path) -> None:
    """The format is the exporter's choice, not the data's."""
    frame = pd.DataFrame(
        {
            "id": [1, 2],
            "sold_at": pd.to_datetime(["2020-01-01T12:00:00Z", "2020-01-01T11:00:00Z"]),
            "shop": ["007", "a"],
            "size": [1.5, None],
            "pieces": [3.0, None],
            "gift": [True, None],
        }
    )
    frame.to_parquet(tmp_path / "sales.parquet")
    two = [record for record in read(HistoryFiles(csv_file)) if record["id"] != "3"]
    of_parquet = read(HistoryFiles(Table(tmp_path / "sales.parquet")))
    assert [{**record, "sold_at": "", "known_at": ""} for record in of_parquet] == [
        {**record, "sold_at": "", "known_at": ""} for record in two
    ]


def test_labels_beside_the_observations_come_when_they_were_known(tmp_path) -> None:
    """A label that stood before its time in the log would leak the future into features."""
    path = tmp_path / "sales.csv"
    path.write_text(
        "id,sold_at,shop,gain,told_at\n"
        "a,2020-01-01T10:00:00Z,x,1,2020-01-01T12:00:00Z\n"
        "b,2020-01-01T11:00:00Z,x,,\n"
        "c,2020-01-01T12:00:00Z,x,-1,2020-01-01T14:00:00Z\n"
    )
    found = read(HistoryFiles(Table(path), label_time="told_at"))
    assert [(one["id"], "gain" in one) for one in found] == [
        ("a", False), ("b", False), ("c", False), ("a", True), ("c", True),
    ]  # fmt: skip
    assert found[3] == {
        "id": "a",
        "event_time": "2020-01-01T12:00:00Z",
        "known_at": "2020-01-01T12:00:00Z",
        "shop": "x",
        "gain": 1.0,
    }


@pytest.mark.parametrize(("name", "text"), [("a.csv", "id,shop\n1,x\n"), ("a.ndjson", '{"id": "1"}\n')])
def test_a_missing_column_is_named_before_anything_is_read(tmp_path, name, text) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="has no column"):
        HistoryFiles(Table(tmp_path / name)).check(PIPELINE)


@pytest.mark.parametrize("text", ["[1]\n", "{\n"])
def test_a_line_that_is_no_object_is_named(tmp_path, text) -> None:
    (tmp_path / "a.ndjson").write_text(text)
    with pytest.raises(EverloopError, match=r"a\.ndjson:1"):
        list(Table(tmp_path / "a.ndjson").rows())


def test_another_kind_of_file_and_none_at_all_are_refused(tmp_path) -> None:
    with pytest.raises(UsageError, match="xlsx"):
        Table(tmp_path / "a.xlsx")
    with pytest.raises(EverloopError, match="no file"):
        Table(tmp_path / "a.csv")


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=60), st.integers(1, 70))
def test_the_order_is_the_same_whatever_fits_into_memory(rows, in_memory) -> None:
    """A rerun that skips what was sent must skip the same records."""
    records = [Timed(us, is_label, row, b'{"a b": 1}') for row, (us, is_label) in enumerate(rows)]
    shuffled = random.Random(0).sample(records, len(records))
    assert list(in_order(shuffled, in_memory=in_memory)) == sorted(records)


def test_progress_outlives_the_process_and_belongs_to_its_history(tmp_path) -> None:
    Progress(tmp_path / "new", "p", "one").save(5)
    assert Progress(tmp_path / "new", "p", "one").published == 5
    assert Progress(tmp_path / "new", "p", "other").published == 0


def test_a_changed_file_is_another_history(tmp_path) -> None:
    """Skipping the first thousand rows of a file that was written anew would lose them."""
    path = tmp_path / "a.csv"
    path.write_text(CSV)
    before = Table(path).identity
    path.write_text(CSV + "4,2020-01-01T13:00:00Z,a,1,1,true,z\n")
    assert Table(path).identity != before


def test_refused_rows_are_counted_by_reason_with_the_first_as_examples() -> None:
    """ "3 rows refused" of a million helps nobody."""
    start = [Timed(number, number % 2 == 1, number, b"{}") for number in range(20)]

    def ask(kind, rows):
        violation = {"field": "size", "value": "x", "rule": "type", "mend": "write a number"}
        return [
            {"status": "refused", "id": None, "violations": [violation]}
            if kind == "label"
            else {"status": "accepted", "id": "1"}
            for _ in rows
        ]

    checked = check_records(start, ask)
    assert (checked.observations, checked.labels, checked.refused, checked.bytes) == (10, 10, 10, 40)
    assert checked.reasons == {("label", "size", "type"): 10}
    assert [one["row"] for one in checked.examples] == [1, 3, 5, 7, 9]


def test_known_at_of_a_row_wins_over_its_event_time(tmp_path) -> None:
    known = NOON + timedelta(days=2)
    (tmp_path / "a.csv").write_text(f"id,sold_at,shop,known_at\n1,{NOON.isoformat()},x,{known.isoformat()}\n")
    (record,) = HistoryFiles(Table(tmp_path / "a.csv")).records(PIPELINE)
    assert datetime.fromtimestamp(record.known_us / 1e6, UTC) == known
