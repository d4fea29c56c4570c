"""Quarantined records without a broker: which are wanted, how they are mended, what is sent again."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from everloop.errors import EverloopError
from everloop.quarantine import resolving
from everloop.quarantine.entries import Entry, Wanted
from everloop.quarantine.patches import CannotPatchError, Patch, read_patch
from everloop.quarantine.resolving import REPLAY_HEADER, Order, Resolved, mended
from everloop_schemas.cloudevents import Envelope, envelope
from everloop_schemas.events import RecordQuarantined, Violation

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
BINARY = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"1"),
    ("ce_source", b"crew"),
    ("ce_type", b"io.everloop.label"),
]


def entry(offset: int = 1, data: bytes = b'{"id": "a", "origin": "ewr"}', **changes) -> Entry:
    given = {
        "pipeline": "p",
        "reason": "allowed-values",
        "violations": [
            Violation(field="origin", value="ewr", rule="allowed-values", mend="send EWR"),
            Violation(field="distance", value="-1", rule="min", mend="at least 0"),
        ],
        "kind": "label",
        "id": "a",
        "source": "crew",
        "quarantined_at": AT,
        "data_base64": base64.b64encode(data).decode(),
        "inbound_partition": 2,
        "inbound_offset": offset,
        "headers": [(name, base64.b64encode(value).decode()) for name, value in BINARY],
    }
    return Entry(RecordQuarantined(**{**given, **changes}), b"key")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), True),
        (Wanted(reason="min"), True),
        (Wanted(reason="max"), False),
        (Wanted(source="crew"), True),
        (Wanted(source="other"), False),
        (Wanted(since=AT), True),
        (Wanted(since=AT + timedelta(seconds=1)), False),
        (Wanted(until=AT), False),
        (Wanted(ids=frozenset({"2-1"})), True),
        (Wanted(ids=frozenset({"2-2"})), False),
        (Wanted(resolved=True), False),
    ],
)
def test_filters(wanted, expected) -> None:
    """A filter that lets through too much sends what nobody has looked at."""
    assert wanted.matches(entry()) is expected


MERGES = [  # from the appendix of RFC 7396
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), MERGES)
def test_merge_patches_follow_the_rfc(target, patch, result) -> None:
    """People know RFC 7396; a dialect of ours would mend other fields than they meant."""
    value, _ = Patch(json.dumps(patch).encode()).mend(json.dumps(target).encode(), [])
    assert json.loads(value) == result


def test_a_json_patch_is_applied() -> None:
    patch = Patch(b'[{"op": "replace", "path": "/origin", "value": "EWR"}, {"op": "remove", "path": "/x"}]')
    value, headers = patch.mend(b'{"origin": "ewr", "x": 1}', BINARY)
    assert json.loads(value) == {"origin": "EWR"}
    assert headers == BINARY


def test_a_structured_event_is_mended_inside() -> None:
    """A patch names the record's fields; the envelope around them must survive."""
    event = {"specversion": "1.0", "id": "7", "source": "crew", "type": "io.everloop.label", "data": {"a": 1}}
    structured = [("content-type", b"application/cloudevents+json; charset=utf-8"), ("x", b"y")]
    value, headers = Patch(b'{"a": 2}').mend(json.dumps(event).encode(), structured)
    found = envelope(headers, value)
    assert isinstance(found, Envelope)
    assert (found.id, found.source, found.type, json.loads(found.data)) == (
        "7",
        "crew",
        event["type"],
        {"a": 2},
    )
    assert ("x", b"y") in headers


@pytest.mark.parametrize("value", [b"{nope", b"[1]", b'{"a": 1}', b"\xff"])
def test_a_record_that_the_patch_does_not_fit_is_named(value) -> None:
    with pytest.raises(CannotPatchError):
        Patch(b'[{"op": "replace", "path": "/b/c", "value": 1}]').mend(value, [])


@pytest.mark.parametrize("text", ["nope", "3", '[{"op": "jump"}]', '[{"op": "replace", "path": "x"}]', "[1]"])
def test_a_patch_that_is_none_is_refused_before_anything_is_sent(tmp_path, text) -> None:
    """Half of the records mended by half a patch would be worse than none."""
    path = tmp_path / "patch.json"
    path.write_text(text)
    with pytest.raises(EverloopError, match="is no JSON patch"):
        read_patch(path)


def test_the_original_bytes_and_headers_go_back() -> None:
    """A replay must be what the producer sent, to the byte."""
    assert mended(entry(), None) == (b'{"id": "a", "origin": "ewr"}', BINARY)


def test_headers_that_were_not_kept_follow_from_kind_and_source() -> None:
    """Records from before headers were kept must not change their source: duplicates go by it."""
    _, headers = mended(entry(headers=None), None)
    found = envelope(headers, b"{}")
    assert isinstance(found, Envelope)
    assert (found.source, found.type) == ("crew", "io.everloop.label")
    assert mended(entry(headers=None, kind=None), None)[1] == []


def test_a_second_replay_carries_one_mark_only() -> None:
    marked = [*BINARY, (REPLAY_HEADER, b"2-0")]
    again = entry(headers=[(name, base64.b64encode(value).decode()) for name, value in marked])
    assert mended(again, None)[1] == BINARY


async def stream(count: int, data: bytes = b"{}") -> AsyncIterator[Entry]:
    for offset in range(count):
        yield entry(offset, data)


async def test_each_entry_goes_with_its_resolution(monkeypatch) -> None:
    """An entry sent without its resolution would be sent again by the next run."""
    monkeypatch.setattr(resolving, "_ENTRIES_AT_ONCE", 3)
    done = Resolved()
    batches = [
        batch async for batch in resolving._batches(stream(7), "p", Order("replayed", "kim", ""), done)
    ]
    assert [len(batch) for batch in batches] == [6, 6, 2]
    for batch in batches:
        sent = [dict(one.headers)[REPLAY_HEADER] for one in batch if "published" in one.topic]
        assert sent == [one.key for one in batch if "resolved" in one.topic]
    assert done.ids == [f"2-{n}" for n in range(7)]


async def test_large_records_go_in_small_transactions() -> None:
    """500 records of a megabyte each do not fit in memory."""
    large = stream(6, b'"' + b"x" * 1_300_000 + b'"')
    sizes = [
        sum(len(one.value or b"") for one in batch)
        async for batch in resolving._batches(large, "p", Order("replayed", "kim", ""), Resolved())
    ]
    assert len(sizes) == 2
    assert max(sizes) < 6_000_000


async def test_a_limit_is_kept_and_a_discard_sends_nothing() -> None:
    done = Resolved()
    order = Order("discarded", "kim", "test data", limit=2)
    batches = [batch async for batch in resolving._batches(stream(5), "p", order, done)]
    assert [one.topic for batch in batches for one in batch] == ["ingest-quarantine-resolved-v1.p"] * 2
    assert len(done.ids) == 2
