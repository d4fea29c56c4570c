"""Entries of the log as ingest writes them, and as it reads them back to know what it has written."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from everloop_ingest.domain.contract import Checked, Kind
from everloop_ingest.domain.duplicates import Recent, Verdict, content_digest

__all__ = ["LogEntry", "entry_of", "judge", "read_entry", "take"]


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
    reason: str | None = None

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
        checked.reason,
    )


def read_entry(value: bytes | None) -> LogEntry | None:
    """An entry that stands in the log; None for what ingest has not written."""
    try:
        return _decode(value or b"")
    except msgspec.MsgspecError:
        return None


def judge(entry: LogEntry, recent: Recent) -> Verdict:
    """Whether the log holds a new entry already, or something else under its name; what is new is taken."""
    if entry.retraction:
        return recent.judge_retraction(entry.source, entry.id)
    digest = content_digest(entry.event_time, bytes(entry.fields), in_order=True)
    if entry.kind == "label":
        return recent.judge_label(entry.source, entry.id, digest, entry.known_at)
    return recent.judge_observation(entry.source, entry.id, digest)


def take(entry: LogEntry, recent: Recent) -> None:
    """Remember an entry that stands in the log; an earlier version may have ordered its fields otherwise."""
    if entry.retraction:
        recent.take_retraction(entry.source, entry.id)
        return
    digest = content_digest(entry.event_time, bytes(entry.fields), in_order=False)
    if entry.kind == "label":
        recent.take_label(entry.source, entry.id, digest, entry.known_at)
    else:
        recent.take_observation(entry.source, entry.id, digest)
