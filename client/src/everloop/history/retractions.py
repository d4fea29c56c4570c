"""Observations to be retracted: looked up in the log, and withdrawn under the source that sent them."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from everloop_kernel.kafka_reading import read_to_end
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.pipeline import Pipeline

from everloop.errors import EverloopError, UsageError
from everloop.history.log import Log
from everloop.history.tables import Table

__all__ = ["LookUp", "Retraction", "Retractions", "Standing", "find", "ids_of"]

_ROWS_PER_REQUEST: Final = 1000
_TABLES: Final = (".csv", ".parquet", ".ndjson", ".jsonl")

Tell = Callable[[int], None]
Post = Callable[[str, bytes], Mapping[str, Any]]
"""A source, and rows as NDJSON of that source, to ingest's answer."""


class _Entry(msgspec.Struct, gc=False):
    """What is needed of a log record."""

    kind: str
    id: str
    source: str
    fields: dict[str, Any]
    retraction: bool = False


_decode = msgspec.json.Decoder(_Entry).decode


@dataclass(frozen=True, slots=True)
class Retraction:
    """One observation that the log holds: its id, its source, its partition key's fields."""

    id: str
    source: str
    key: Mapping[str, Any]

    def row(self, reason: str) -> bytes:
        """What ingest is sent."""
        why = {} if "reason" in self.key else {"reason": reason}
        return msgspec.json.encode({**self.key, **why, "id": self.id})


@dataclass(slots=True)
class Standing:
    """How the wanted observations stand in the log: still there, withdrawn already, or not known."""

    open: list[Retraction] = field(default_factory=list[Retraction])
    withdrawn: list[str] = field(default_factory=list[str])
    missing: list[str] = field(default_factory=list[str])


def ids_of(path: Path) -> list[str]:
    """The ids in a file: a table with a column `id`, or one id a line. Raises EverloopError."""
    found = list(dict.fromkeys(_table_ids(path) if path.suffix.lower() in _TABLES else _lines(path)))
    if not found:
        raise UsageError(f"{path} names no id.", "Write one id a line.")
    return found


def _table_ids(path: Path) -> Iterator[str]:
    for row in Table(path).rows():
        value = row.get("id")
        if not isinstance(value, str | int) or value == "":
            raise UsageError(f"{path} has a row without an id.", "Fill the column `id` in every row.")
        yield str(value)


def _lines(path: Path) -> list[str]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        mend = "Name a UTF-8 file with one id a line."
        raise EverloopError(f"{path} cannot be read: {error}", mend) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


async def find(
    kafka: KafkaSettings,
    pipeline: Pipeline,
    ids: Sequence[str] | None,
    source: str | None,
    tell: Callable[[float], None] = lambda _: None,
) -> Standing:
    """Look observations up by id, by source, or by both; the whole log is read once.

    `tell` hears which share of the log was read. In memory are the observations found.
    """
    log, lookup = Log(kafka, pipeline.pipeline), LookUp(ids, source, pipeline.partition_by)
    bounds = await log.bounds()
    total, before = sum(end - first for first, end in bounds.values()), 0
    for number, (first, end) in bounds.items():
        async for page in read_to_end(kafka, log.partition(number)):
            lookup.take(record.value for record in page)
            tell((before + page[-1].offset + 1 - first) / total)
        before += end - first
    return lookup.standing()


class LookUp:
    """Takes the log in order; by id and source, an observation, or None once it was withdrawn."""

    def __init__(self, ids: Sequence[str] | None, source: str | None, key: Sequence[str]) -> None:
        self._ids, self._source, self._key = ids, source, key
        self._wanted = None if ids is None else frozenset(ids)
        self._found: dict[str, dict[str, Retraction | None]] = {}

    def take(self, values: Iterable[bytes | None]) -> None:
        """Take the next records."""
        for entry in _entries(values):
            if self._wanted is None or entry.id in self._wanted:
                self._note(entry)

    def standing(self) -> Standing:
        """How what was wanted stands."""
        observations = [one for sources in self._found.values() for one in sources.values()]
        withdrawn = [name for name, sources in self._found.items() if not any(sources.values())]
        missing = [name for name in self._ids or () if name not in self._found]
        return Standing([one for one in observations if one is not None], withdrawn, missing)

    def _note(self, entry: _Entry) -> None:
        """A retraction withdraws what stands before it, whatever its source."""
        if entry.retraction:
            if entry.id in self._found:
                self._found[entry.id] = dict.fromkeys(self._found[entry.id])
        elif entry.kind == "observation" and self._source in (None, entry.source):
            fields = {name: entry.fields[name] for name in self._key if entry.fields.get(name) is not None}
            one = Retraction(entry.id, entry.source, fields)
            self._found.setdefault(entry.id, {})[entry.source] = one


def _entries(values: Iterable[bytes | None]) -> Iterator[_Entry]:
    for value in values:
        try:
            yield _decode(value or b"")
        except msgspec.MsgspecError:
            continue


@dataclass(slots=True)
class Retractions:
    """What became of a run: how many ingest has taken, and what it refused."""

    sent: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def send(
        self, wanted: Sequence[Retraction], reason: str, post: Post, tell: Tell = lambda _: None
    ) -> None:
        """Send retractions, each under its observation's source; `tell` hears how many are done."""
        by_source: defaultdict[str, list[Retraction]] = defaultdict(list)
        for one in wanted:
            by_source[one.source].append(one)
        for source, mine in by_source.items():
            for first in range(0, len(mine), _ROWS_PER_REQUEST):
                page = mine[first : first + _ROWS_PER_REQUEST]
                answer = post(source, b"\n".join(one.row(reason) for one in page))
                self.sent += int(answer["accepted"])
                self.refused += [one for one in answer["results"] if one.get("status") == "refused"]
                tell(self.sent + len(self.refused))
