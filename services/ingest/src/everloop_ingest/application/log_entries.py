"""Entries of the log as ingest writes them, and as it reads them back to know what it has written."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from everloop_ingest.domain.contract import Checked, Kind
from everloop_ingest.domain.duplicates import Recent, Verdict, content_digest

__all__ = ["LogEntry", "digest_of", "entry_of", "judge", "read_entry"]


class LogEntry(msgspec.Struct, omit_defaults=True):
    """A `RecordAccepted`. A retraction is a label without a value to consumers that do not know of it."""

    kind: str
    id: str
    source: str
    event_time: datetime
    known_at: datetime
    fields: msgspec.Raw
    retraction: bool = False
    warnings: Sequence[Mapping[str, str | None]] = ()

    @property
    def what(self) -> Kind:
        """The kind of record that it is."""
        if self.retraction:
            return "retraction"
        return "label" if self.kind == "label" else "observation"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(LogEntry).decode


def entry_of(source: str, checked: Checked) -> LogEntry:
    """The log's entry of a record that may enter it."""
    return LogEntry(
        "observation" if checked.kind == "observation" else "label",
        checked.id,
        source,
        checked.event_time,
        checked.known_at,
        msgspec.Raw(_encode(checked.fields)),
        checked.kind == "retraction",
        [violation.model_dump() for violation in checked.warnings] if checked.warnings else (),
    )


def read_entry(value: bytes | None) -> LogEntry | None:
    """An entry that stands in the log; None for what ingest has not written."""
    try:
        return _decode(value or b"")
    except msgspec.MsgspecError:
        return None


def digest_of(entry: LogEntry, *, fresh: bool) -> int:
    """The digest of an entry's content; a fresh one has its names in order."""
    return content_digest(entry.event_time, bytes(entry.fields), in_order=fresh)


def judge(entry: LogEntry, recent: Recent, *, fresh: bool) -> Verdict:
    """Whether the log holds this already, or something else under its name; what is new is taken."""
    match entry.what:
        case "retraction":
            return recent.retract(entry.source, entry.id)
        case "label":
            return recent.label(entry.source, entry.id, digest_of(entry, fresh=fresh), entry.known_at)
        case _:
            return recent.observe(entry.source, entry.id, digest_of(entry, fresh=fresh))
