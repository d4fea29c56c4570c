"""Whatever the file holds, `everloop init` writes a pipeline that validates, and records that it accepts."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from everloop.errors import EverloopError
from everloop.first_steps import Wishes, open_source, plan_of, take_sample, text_of, write_records
from everloop_features import compile as compile_features
from everloop_ingest.application.reading import read_data
from everloop_ingest.domain.contract import Checked, Contract
from everloop_schemas.pipeline import Pipeline, load
from hypothesis import example, given, settings
from hypothesis import strategies as st

NOW = datetime(2030, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime.fromisoformat("1971-01-01"), datetime.fromisoformat("2029-01-01")

headers = st.one_of(
    st.sampled_from(
        ["id", "class", "lambda", "time", "label", "event_time", "by", "origin", "known_at", "outcome"]
    ),
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\x00\r\n"), max_size=12
    ),
)
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
cells = st.sampled_from(
    [
        st.integers(-(10**20), 10**20).map(str),
        st.integers(0, 1).map(str),
        st.floats(allow_nan=True).map(repr),
        st.sampled_from(["yes", "no"]),
        st.sampled_from(["NA", "", "null", "-"]),
        st.datetimes(FIRST, LAST).map(datetime.isoformat),
        st.dates(FIRST.date(), LAST.date()).map(lambda day: f"{day:%d.%m.%Y}"),
        words,
    ]
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    names = draw(st.lists(headers, min_size=1, max_size=5))
    kinds = [draw(st.lists(cells, min_size=1, max_size=2)) for _ in names]
    row = st.tuples(*(st.one_of(*kind) for kind in kinds)).map(list)
    return names, draw(st.lists(row, min_size=1, max_size=12))


def file_of(folder: Path, names: list[str], rows: list[list[str]]) -> Path:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([names, *rows])
    path = folder / "sample.csv"
    path.write_text(text.getvalue(), "utf-8")
    return path


@settings(max_examples=40, deadline=None)
@given(tables())
@example((["TRUE", "no", "Null", "a"], [["0", "1", "2", "3"]]))
@example((["code", "n"], [["18446744073709551615", "1.5"], ["-1", "18446744073709551615"], ["7", "-1"]]))
@example((["code", "n"], [["1" * 5000, "1.5"], ["-1", "9" * 400], ["7", "-1"]]))
@example((["a", "a", "id"], [["1e300", "-1.7e308", "x"], ["-1e300", "1.7e308", "x"]] * 15))
@example(
    (["at", "\x7f\x85\u2028#: [", "label"], [["2024-01-01", "\u2028", "'\""], ["2024-01-02", "#", "\\"]] * 15)
)
def test_every_draft_validates_and_accepts_its_own_rows(table: tuple[list[str], list[list[str]]]) -> None:
    """The first thing that a user sees must not be an error in a file that we have written."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = file_of(folder, *table)
        try:
            sample = take_sample(open_source(path))
        except EverloopError:  # such as a file without names; the unit tests hold the words
            return
        plan = plan_of(sample, "drafted", Wishes())
        pipeline = load(text_of(plan))
        assert isinstance(pipeline, Pipeline), list(map(str, pipeline))
        compiled = compile_features(pipeline)
        assert not isinstance(compiled, list), list(map(str, compiled))
        if plan.roles.time is not None:
            write_records(plan, folder / "records")
            _check_records(pipeline, folder / "records")


def _check_records(pipeline: Pipeline, folder: Path) -> None:
    contract = Contract(pipeline)
    for kind in ("observation", "label"):
        for line in (folder / f"{kind}s.ndjson").read_bytes().splitlines():
            found = read_data(contract, kind, line, source="history", now=NOW, may_replay=True)
            assert isinstance(found, Checked), (json.loads(line), found)
            assert found.known_at <= NOW + timedelta(days=1)
