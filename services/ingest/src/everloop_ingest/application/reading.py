"""From bytes and headers to a checked record, or to the reasons why not; for worker and HTTP edge alike."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec
from everloop_schemas.cloudevents import Envelope, Rejected, envelope, strict_json
from everloop_schemas.events import Violation

from everloop_ingest.domain.contract import Checked, Contract, Kind, Refused

__all__ = ["LONGEST_SOURCE", "PLAIN_SOURCE", "Read", "is_source", "read_data", "read_record"]

PLAIN_SOURCE: Final = "kafka"
"""The source of records that came to the inbound topic as plain JSON."""
LONGEST_SOURCE: Final = 200


class Read(msgspec.Struct, frozen=True):
    """A record's source, and what the contract says of it."""

    source: str | None
    outcome: Checked | Refused


def read_record(
    contract: Contract, headers: Iterable[tuple[str, bytes | None]], value: bytes | None, now: datetime
) -> Read:
    """Read one inbound record. Total: whatever the bytes, the outcome is a value."""
    found = envelope(headers, value)
    if isinstance(found, Rejected):
        return Read(None, refused(found, None))
    source = found.source or PLAIN_SOURCE
    if not is_source(source):
        mend = f"name the source in 1 to {LONGEST_SOURCE} printable characters"
        unusable = Violation(field="source", value=source[:LONGEST_SOURCE], rule="source", mend=mend)
        return Read(source[:LONGEST_SOURCE], Refused([unusable], None, None))
    return Read(source, _outcome(contract, found, source, now))


def is_source(text: str) -> bool:
    """Whether a source can be kept: databases take no NUL, and a terminal acts on control characters."""
    return 0 < len(text) <= LONGEST_SOURCE and text.isprintable()


def _outcome(contract: Contract, found: Envelope, source: str, now: datetime) -> Checked | Refused:
    data = strict_json(found.data)
    if isinstance(data, Rejected):
        return refused(data, None)
    kind = contract.kind_of(found.type, data)
    if isinstance(kind, Refused):
        return kind
    plain = b"\\u0000" not in found.data
    return contract.check(kind, data, source=source, now=now, text_is_plain=plain)


def read_data(
    contract: Contract, kind: Kind, data: bytes, *, source: str, now: datetime, may_replay: bool
) -> Checked | Refused:
    """Read the JSON of a record whose kind and source are known."""
    fields = strict_json(data)
    if isinstance(fields, Rejected):
        return refused(fields, kind)
    plain = b"\\u0000" not in data
    return contract.check(kind, fields, source=source, now=now, may_replay=may_replay, text_is_plain=plain)


def refused(rejected: Rejected, kind: Kind | None) -> Refused:
    """The decoder's refusal as a violation of the record as a whole."""
    violation = Violation(field=None, value=rejected.reason[:200], rule=rejected.code, mend=rejected.mend)
    return Refused([violation], kind, None)
