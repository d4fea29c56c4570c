"""The quick look at a row lets in only what the contract's full check lets in, as the same record."""

import json
from datetime import UTC, datetime

from everloop_ingest.application.reading import read_data
from everloop_ingest.domain.contract import Checked, Contract
from everloop_schemas.pipeline import Pipeline, load
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = """
pipeline: flights
partition_by: [origin, gate]
observation:
  event_time: departure
  replay_sources: [history]
  fields:
    origin: {type: category, values: [EWR, JFK, Österreich]}
    carrier: {type: category}
    gate: {type: integer, min: -3, nullable: true}
    distance: {type: number, min: 0, max: 6000}
    wind: {type: number, nullable: true}
    remark: {type: string, nullable: true}
    seen: {type: timestamp, nullable: true}
    full: {type: boolean}
label: {type: binary, fields: {delay: {type: number}}, value: {late: delay > 15}}
"""
NOW = datetime(2026, 1, 2, tzinfo=UTC)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True),
    st.text(max_size=6),
    st.sampled_from(
        [
            "EWR", "Österreich", "", "a\x7fb", 22.0, 2**63, -(2**63), 1e300, 5,
            "2026-01-01T05:15:00Z", "0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00",
            "2026-01-01T05:15:00", "2026-01-02T00:04:59Z", "2026-01-02T00:05:01+00:00", [1], {"a": {"b": 1}},
        ]
    ),
)  # fmt: skip


def contract() -> Contract:
    pipeline = load(TEXT)
    assert isinstance(pipeline, Pipeline), pipeline
    return Contract(pipeline)


CONTRACT = contract()
GOOD = {
    "id": "a1", "departure": "2026-01-01T05:15:00Z", "origin": "EWR", "carrier": "UA", "gate": 3,
    "distance": 1400, "wind": 7.5, "remark": "none", "seen": "2026-01-01T05:15:00+02:00", "full": True,
}  # fmt: skip
OPTIONAL = ("gate", "wind", "remark", "seen")


@st.composite
def rows(draw: st.DrawFn) -> bytes:
    """A good row with a few things changed, dropped or doubled, and its text sometimes cut or spoilt."""
    pairs = [(name, value) for name, value in GOOD.items() if name not in OPTIONAL or draw(st.booleans())]
    changes = st.tuples(st.sampled_from([*GOOD, "known_at", "surprise"]), VALUES)
    pairs += draw(st.lists(changes, max_size=2))
    for name in draw(st.lists(st.sampled_from(OPTIONAL), max_size=1)):
        pairs = [(other, None if other == name else value) for other, value in pairs]
    if draw(st.booleans()):
        pairs = list(dict(pairs).items())
    spaces, ascii_only = draw(st.sampled_from([" ", "", "\n"])), draw(st.booleans())
    members = [f"{json.dumps(n)}:{spaces}{json.dumps(v, ensure_ascii=ascii_only)}" for n, v in pairs]
    text = ("{" + ",".join(members) + "}" + spaces).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=2)) + text[at + draw(st.integers(0, 2)) :]
    return text


@settings(max_examples=400, deadline=None)
@given(rows(), st.booleans())
def test_a_glance_never_lets_in_what_the_contract_refuses(row: bytes, replays: bool) -> None:  # noqa: FBT001
    """Otherwise the edge would say 202 to a record that the worker then quarantines."""
    seen = CONTRACT.glances["observation"].at(row, NOW, replays=replays)
    if seen is None:
        return
    source = "history" if replays else "other"
    full = read_data(CONTRACT, "observation", row, source=source, now=NOW, may_replay=replays)
    assert isinstance(full, Checked), full
    assert (seen.id, seen.key) == (full.id, full.key)


@given(st.sets(st.sampled_from(OPTIONAL)), st.sets(st.sampled_from(OPTIONAL)), st.booleans())
def test_ordinary_rows_are_let_in_at_a_glance(absent: set[str], null: set[str], replays: bool) -> None:  # noqa: FBT001
    """Without that every row would pay for the closer look."""
    row = {name: None if name in null else value for name, value in GOOD.items() if name not in absent}
    if replays:
        row["known_at"] = "2026-01-01T06:00:00Z"
    text = json.dumps(row).encode()
    assert CONTRACT.glances["observation"].at(text, NOW, replays=replays) is not None


def test_a_doubled_key_is_seen_even_where_another_is_absent() -> None:
    """Two readers could otherwise read two different records."""
    look = CONTRACT.glances["observation"]
    row = {name: value for name, value in GOOD.items() if name != "wind"}
    text = json.dumps(row)[:-1] + ', "distance": 7}'
    assert look.at(text.encode(), NOW, replays=False) is None


def test_labels_have_their_glance_too() -> None:
    """Labels come in the same numbers."""
    row = b'{"id":"a","event_time":"2026-01-01T05:15:00Z","origin":"JFK","gate":null,"delay":3}'
    seen = CONTRACT.glances["label"].at(row, NOW, replays=False)
    assert seen is not None
    assert seen.key == b"JFK\x1f"
