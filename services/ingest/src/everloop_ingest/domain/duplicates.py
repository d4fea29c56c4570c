"""Which records a log partition holds already, each (kind, source, id) with a digest of its content.

The same content again is a duplicate. Other content is a conflict, but a label may be revised, and an
observation may be published anew after it was retracted.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal

import msgspec

__all__ = ["DuplicateWindow", "Recent", "Verdict", "content_digest", "identity"]

Verdict = Literal["new", "duplicate", "revision", "conflict"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RETRACTED = 1 << 64
"""An entry is one number: known_at (µs, labels only), whether it is retracted, 64 bits of digest."""
_DIGEST = _RETRACTED - 1
_TIME_SHIFT = 65
_SLACK = 64
"""The window grows by one part in so many before it forgets: forgetting looks through a batch at once."""

_NULL = re.compile(rb'(?<=[{,])"[A-Za-z][A-Za-z0-9_]*":null(?:,|(?=}))')
"""A member that is null. A quote after a comma is no part of a text: there it would be escaped."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def identity(kind: str, source: str, record_id: str) -> str:
    """What makes a record the same record. The separator cannot stand in a kind or in an id."""
    return f"{kind[0]}{record_id}\x1f{source}"


def content_digest(event_time: datetime, fields: bytes, *, in_order: bool) -> int:
    """64 bits of a record's event time and fields, as the JSON that the log holds.

    Nulls do not count: a field that a later version of the pipeline adds changes no earlier record.
    `in_order` says that the names are sorted and no space is between: what is left is to drop the nulls.
    The number is another one in each process and is kept nowhere: it is made again from the log.
    """
    if not in_order:
        values = _decode(fields)
        fields = _encode({name: values[name] for name in sorted(values) if values[name] is not None})
    elif b":null" in fields:
        fields = _NULL.sub(b"", fields)
        fields = fields[:-2] + b"}" if fields.endswith(b",}") else fields
    return hash((event_time, fields)) & _DIGEST


class DuplicateWindow:
    """The newest `limit` identities of a log partition, or a few more: a text and a number each."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, name: str) -> int | None:
        """An identity's entry."""
        return self._held.get(name)

    def resize(self, limit: int) -> None:
        """Change the horizon: the pipeline's file has changed."""
        self._limit = limit
        self._forget(0)

    def take(self, changes: Mapping[str, int]) -> None:
        """Take entries of records that were accepted, in the log's order."""
        for name, entry in changes.items():
            self._held.pop(name, None)  # so that it is the newest
            self._held[name] = entry
        self._forget(self._limit // _SLACK)

    def _forget(self, slack: int) -> None:
        surplus = len(self._held) - self._limit
        if surplus > slack:
            for name in list(islice(self._held, surplus)):
                del self._held[name]


class Recent:
    """A window and what a batch adds to it, kept apart until the batch is committed.

    `judge_…` says what a record is to the log, and takes one that may enter it; `take_…` takes what stands
    in the log already.
    """

    def __init__(self, window: DuplicateWindow) -> None:
        self._window = window
        self.changes: dict[str, int] = {}

    def judge_observation(self, source: str, record_id: str, digest: int) -> Verdict:
        """A retracted observation may be published anew with other content."""
        held = self._get(identity("observation", source, record_id))
        if held is not None and held & _DIGEST == digest:
            return "duplicate"
        if held is not None and not held & _RETRACTED:
            return "conflict"
        self.take_observation(source, record_id, digest)
        return "new"

    def take_observation(self, source: str, record_id: str, digest: int) -> None:
        """An observation that the log holds."""
        self.changes[identity("observation", source, record_id)] = digest

    def judge_label(self, source: str, record_id: str, digest: int, known_at: datetime) -> Verdict:
        """Other content is a revision, unless it was known before what the log holds.

        An earlier revision that comes again is a duplicate, not a revision back.
        """
        name = identity("label", source, record_id)
        held = self._get(name)
        if held is not None:
            if held & _DIGEST == digest or self._get(_revised(name, digest)) is not None:
                return "duplicate"
            if _microseconds(known_at) < held >> _TIME_SHIFT:
                return "conflict"
        self.take_label(source, record_id, digest, known_at)
        return "new" if held is None else "revision"

    def take_label(self, source: str, record_id: str, digest: int, known_at: datetime) -> None:
        """A label that the log holds, and perhaps a revision of an earlier one."""
        name = identity("label", source, record_id)
        held = self._get(name)
        if held is not None and held & _DIGEST != digest:
            self.changes[_revised(name, held & _DIGEST)] = 0
        self.changes[name] = _microseconds(known_at) << _TIME_SHIFT | digest

    def judge_retraction(self, source: str, record_id: str) -> Verdict:
        """An observation may be retracted that the window no longer holds."""
        if (self._get(identity("observation", source, record_id)) or 0) & _RETRACTED:
            return "duplicate"
        self.take_retraction(source, record_id)
        return "new"

    def take_retraction(self, source: str, record_id: str) -> None:
        """A retraction that the log holds."""
        name = identity("observation", source, record_id)
        self.changes[name] = (self._get(name) or 0) | _RETRACTED

    def _get(self, name: str) -> int | None:
        found = self.changes.get(name)
        return self._window.get(name) if found is None else found


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _revised(name: str, digest: int) -> str:
    return f"{name}\x1f{digest:x}"
