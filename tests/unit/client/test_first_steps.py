"""`everloop init`: a file never seen before becomes a pipeline that validates, with its guesses explained."""

import random
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from everloop.cli import main
from everloop.first_steps import sample as sampling
from everloop_features import compile as compile_features
from everloop_schemas.pipeline import Pipeline, load

Init = Callable[..., tuple[int, str, str]]


@pytest.fixture
def init(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["everloop", "init", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return ended.value.code, printed.out, printed.err

    return call


@pytest.fixture
def draft(init: Init, tmp_path: Path):
    """Write a file, run init on it, and read what it wrote: the text and the pipeline."""

    def call(content: str | bytes, *arguments: str, name: str = "sample.csv") -> tuple[str, Pipeline]:
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(raw)
        code, _, err = init("--from", name, "--force", *arguments)
        assert code == 0, err
        text = (tmp_path / "pipeline.yaml").read_text("utf-8")
        return text, checked(text)

    return call


def checked(text: str) -> Pipeline:
    pipeline = load(text)
    assert isinstance(pipeline, Pipeline), list(map(str, pipeline))
    assert not isinstance(compile_features(pipeline), list)
    return pipeline


def said(text: str) -> str:
    """The comments without their line breaks."""
    return re.sub(r"\n *# ", " ", text)


def listed(pipeline: Pipeline, field: str) -> list[str]:
    return pipeline.observation.fields[field].model_dump()["values"]


def rows(count: int, row: Callable[[int], str], header: str) -> str:
    return "\n".join([header, *map(row, range(count))]) + "\n"


def moment(number: int, minutes: int = 10) -> datetime:
    return datetime(2024, 3, 1, tzinfo=UTC) + number * timedelta(minutes=minutes)


def flights(count: int = 600) -> str:
    chance = random.Random(7)

    def row(number: int) -> str:
        wind = "" if number % 10 == 0 else f"{chance.uniform(0, 40):.1f}"
        delay = chance.randint(-20, 90)
        carrier = chance.choice(["UA", "DL", "B6"])
        origin = chance.choice(["EWR", "JFK", "LGA"])
        return f"F{number},{moment(number).isoformat()},{carrier},{origin},{wind},{delay}"

    return rows(count, row, "flight_id,scheduled_departure,carrier,origin,wind,arr_delay")


def test_a_flights_sample_gives_id_time_key_label_and_features(draft):
    """Whoever starts must get the pipeline that an experienced colleague would have begun with."""
    _, pipeline = draft(flights())
    fields = pipeline.observation.fields
    assert pipeline.pipeline == "sample"
    assert pipeline.observation.event_time == "scheduled_departure"
    assert pipeline.partition_by == ["origin"]
    assert listed(pipeline, "origin") == ["EWR", "JFK", "LGA"]
    assert fields["wind"].nullable
    assert (pipeline.label.type, pipeline.label.expression) == ("number", "arr_delay")
    assert "flight_id" not in fields
    assert pipeline.features["event_hour"] == "hour(event_time)"
    assert "count(window=" in pipeline.features["origin_records_6h"]
    assert "over=labels" in pipeline.features["origin_arr_delay_1d"]


def test_each_guess_says_what_it_saw(draft):
    """A guess that does not show its grounds cannot be judged, and stays wrong."""
    text, _ = draft(flights())
    assert "# unit:" in text
    assert '# Column "wind": 10% missing, ' in text
    assert "half of that span is left as head room" in text
    assert "3 values, each often; any other is refused until it is added here" in text
    assert "Others that would do: carrier" in text
    assert 'In the file it is column "flight_id"' in text


def test_ranges_leave_room_and_do_not_cross_zero(draft):
    """Tomorrow's slightly larger value must not be refused, and a negative distance must be."""
    content = rows(
        100, lambda n: f"{moment(n).isoformat()},{17 + n * 50},{-n},{n % 7}", "at,distance,depth,y"
    )
    _, pipeline = draft(content)
    fields = pipeline.observation.fields
    assert (fields["distance"].min, fields["distance"].max) == (0, 7500)
    assert (fields["depth"].min, fields["depth"].max) == (-149, 0)


def test_a_series_without_key_has_one_partition_and_two_classes(draft):
    """Electricity prices: no column groups them, and the label is a word."""
    chance = random.Random(1)
    content = rows(
        300,
        lambda n: f"{moment(n, 30).isoformat()},{chance.random():.4f},{chance.choice(['UP', 'DOWN', 'UP'])}",
        "date,nswprice,class",
    )
    text, pipeline = draft(content, "--name", "nsw-price")
    assert pipeline.partitions == 1
    assert pipeline.partition_by == ["series"]
    assert listed(pipeline, "series") == ["nsw-price"]
    assert (pipeline.label.type, pipeline.label.expression) == ("binary", "class_value == 'DOWN'")
    assert "No column groups the rows" in text


AWKWARD = "\ufeffDéparture Time;class;2013;;price €;price €;id;zip;lambda;empty;mixed;ok?;日本\r\n" + "".join(
    f"{n % 28 + 1:02d}.03.2024 {n % 24:02d}:15;{'a b' if n % 2 else 'c,d'};{n};x;{n},5;{n};1;0{n % 9}123;"
    f"{n % 3};;{'error' if n == 50 else n};{'yes' if n % 3 else 'no'};v{n % 4}\r\n"
    for n in range(100)
)


def test_an_awkward_file_validates(draft):
    """BOM, semicolons, decimal commas, headers that are no names or reserved, mixed and empty columns."""
    text, pipeline = draft(AWKWARD)
    fields = {**pipeline.observation.fields, **pipeline.label.fields}
    assert pipeline.observation.event_time == "departure_time"
    assert set(fields) >= {
        "class_value",
        "column_2013",
        "column_4",
        "price",
        "price_2",
        "id_value",
        "lambda_value",
    }
    assert fields["price"].type == "number"
    assert fields["zip"].type == "category"
    assert fields["empty"].nullable
    assert fields["mixed"].nullable
    assert fields["mixed"].type == "integer"
    assert "ok" in fields
    assert "column_13" in fields
    assert 'Cells such as "error" are no integer: send null instead' in said(text)
    assert "decimal comma" in said(text)
    assert "empty in the sample" in text


def test_dates_in_several_forms_are_read_and_named(draft):
    """Half of the rows would otherwise have no time, and the text would become a category."""
    forms = ("%Y-%m-%d %H:%M", "%d.%m.%Y %H:%M", "%Y/%m/%d %H:%M:%S")
    content = rows(90, lambda n: f"{moment(n, 60 * 24).strftime(forms[n % 3])},{n},{n % 2}", "when,x,failed")
    text, pipeline = draft(content)
    assert pipeline.observation.event_time == "when"
    assert "Written in 3 forms" in said(text)
    assert "taken as UTC" in said(text)


@pytest.mark.parametrize(("form", "day"), [("%m/%d/%Y", "2024-03-01"), ("%d/%m/%Y", "2024-03-01")])
def test_day_and_month_are_told_apart_by_the_numbers(draft, form, day):
    """1 March must not become 3 January."""
    content = rows(60, lambda n: f"{moment(n, 1440).strftime(form)},{n}", "date,y")
    text, _ = draft(content)
    assert f"{day} 00:00 to 2024-04-29 00:00" in text


def test_seconds_since_1970_are_times_only_where_the_name_says_so(draft):
    """A sales figure of 1.7 billion is no date."""
    content = rows(
        60, lambda n: f"{int(moment(n).timestamp())},{1_700_000_000 + n},{n % 2}", "ts,turnover,churn"
    )
    text, pipeline = draft(content)
    assert pipeline.observation.event_time == "ts"
    assert pipeline.observation.fields["turnover"].type == "integer"
    assert "seconds since 1970" in text


def test_one_column_validates(draft):
    """Even a list of values must give something to go on from."""
    text, pipeline = draft("value\n" + "".join(f"{n}\n" for n in range(40)))
    assert set(pipeline.observation.fields) == {"series", "value"}
    assert pipeline.label.expression == "outcome"
    assert "no column looks like an outcome" in text
    assert "no column holds times" in text


def test_parquet_keeps_its_types(draft, tmp_path):
    """A typed file must not be guessed again from text."""
    count = 200
    frame = pd.DataFrame(
        {
            "at": [moment(n) for n in range(count)],
            "shop": pd.Categorical(["a", "b"] * (count // 2)),
            "price": [float(n) for n in range(count)],
            "pieces": [n % 7 for n in range(count)],
            "tags": [["x"]] * count,
            "returned": [n % 3 == 0 for n in range(count)],
        }
    )
    frame.to_parquet(tmp_path / "orders.parquet")
    _, pipeline = draft((tmp_path / "orders.parquet").read_bytes(), name="orders.parquet")
    types = {name: spec.type for name, spec in pipeline.observation.fields.items()}
    assert types == {"shop": "category", "price": "number", "pieces": "integer", "tags": "category"}
    assert pipeline.label.fields["returned"].type == "boolean"
    assert pipeline.partition_by == ["shop"]


def test_named_columns_win_over_guesses(draft):
    """A wrong guess must be mended by naming the column, not by rewriting the file."""
    _, pipeline = draft(flights(), "--label", "wind", "--key", "carrier", "--time", "scheduled_departure")
    assert pipeline.partition_by == ["carrier"]
    assert pipeline.label.name == "wind"


def test_a_leak_is_pointed_out(draft):
    """A field that follows from the label makes a model that is perfect until it is used."""
    content = rows(200, lambda n: f"{moment(n).isoformat()},{n % 50 + 1},{n % 50}", "at,dep_delay,arr_delay")
    text, _ = draft(content, "--label", "arr_delay")
    assert "goes closely with the label (correlation 1.00)" in text


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("a,b\n", "none.csv", "has no rows"),
        ("", "nothing.csv", "has no columns"),
        ("1,2,3\n4,5,6\n", "bare.csv", "holds numbers, no names"),
        ("a,b\n1,2\n3\n", "ragged.csv", "Expected 2 columns, got 1"),
        ("name,städt\n".encode("latin-1"), "latin.csv", "iconv"),
        ("a,b\n1,2\n".encode("utf-16"), "wide.csv", "UTF-8"),
        ("not parquet", "x.parquet", "cannot be read"),
        ("{}", "x.json", "is no CSV or Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_says_what_to_do(init, tmp_path, content, name, words):
    """The first command that somebody types must not end in a traceback."""
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, err = init("--from", name)
    assert code in (1, 2)
    assert words in err
    assert not (tmp_path / "pipeline.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--from", "gone.csv"), "gone.csv cannot be read"),
        (("--from", "good.csv", "--label", "nope"), "There is no column 'nope'"),
        (("--from", "good.csv", "--time", "carrier"), "holds no times"),
        (("--from", "good.csv", "--name", "My Pipeline"), "is no pipeline's name"),
    ],
)
def test_a_wrong_option_is_named(init, tmp_path, arguments, words):
    """A typo in an option must be told from a broken file."""
    (tmp_path / "good.csv").write_text(flights())
    code, _, err = init(*arguments)
    assert code in (1, 2)
    assert words in err


def test_an_existing_file_is_not_overwritten(init, tmp_path):
    """Hours of editing must not be lost to a second run."""
    (tmp_path / "good.csv").write_text(flights())
    (tmp_path / "pipeline.yaml").write_text("mine")
    code, _, err = init("--from", "good.csv")
    assert code == 1
    assert "exists already" in err
    assert (tmp_path / "pipeline.yaml").read_text() == "mine"


def test_a_large_file_is_sampled_from_its_whole_length():
    """The first rows of a year are January: ranges, categories and times must come from all of it."""
    thinned = sampling._Thinned(100)
    for first in range(0, 10_000, 70):
        count = min(70, 10_000 - first)
        thinned.add(pd.DataFrame({0: range(first, first + count)}))
    kept = thinned.frame()[0].tolist()
    assert thinned.rows == 10_000
    assert 100 <= len(kept) <= 200
    steps = {later - earlier for earlier, later in pairwise(kept)}
    assert len(steps) == 1
    assert kept[-1] >= 10_000 - steps.pop()


def test_other_commands_do_not_wait_for_pandas():
    """`everloop status` must answer at once, also where the extra is not installed."""
    program = "import sys, everloop.cli.app; print({'pandas', 'pyarrow'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "set()\n", done.stderr
