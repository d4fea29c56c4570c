"""The one place that judges the data: notes of all partitions in, windows, verdicts and new-data events out.

Shares and volumes are a pipeline's, not a partition's (a partition holds some of the keys), so the tallies of
all partitions are merged before they are judged. The state is the compacted topic that this task writes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from aiokafka import ConsumerRecord
from everloop_kernel.stream import DeadLetter, Output, RestoreFrom, Step, go_on
from everloop_schemas.cloudevents import Rejected, decode, encode
from everloop_schemas.events import (
    DataArrived,
    QualityJudged,
    QualityMeasured,
    QualityNoted,
    QualityStanding,
    Tallied,
)
from everloop_schemas.ids import derived_id

from everloop_ingest.application import names
from everloop_ingest.domain.book import Book, blocked_reason
from everloop_ingest.domain.rules import Rules, moment, seconds

__all__ = ["Judge", "Judged", "window_key"]


def window_key(pipeline: str, start: int) -> bytes:
    """The key of a window on the compacted topic; a standing's is the pipeline's name alone."""
    return f"{pipeline}/{start}".encode()


@dataclass(slots=True)
class Judged:
    """What a batch of notes changes."""

    books: dict[str, Book] = field(default_factory=dict)
    events: list[QualityJudged] = field(default_factory=list)


class Judge:
    """The pipelines' books, as the stream processor drives them; `rules` gives what holds for one now."""

    generation = "1"

    def __init__(self, rules: Callable[[str], Rules | None]) -> None:
        self._rules = rules
        self._books: dict[str, Book] = {}

    def restore_from(self) -> Sequence[RestoreFrom]:
        """Its own output says enough."""
        return [RestoreFrom(names.MEASURED_TOPIC, 0, always=True)]

    def restore(self, records: Sequence[ConsumerRecord]) -> None:
        """Take a page of windows and standings, the newest of a key last."""
        for record in records:
            pipeline, _, start = (record.key or b"").decode("utf-8", "replace").partition("/")
            book = self._books.setdefault(pipeline, Book(pipeline))
            event = None if record.value is None else decode(QualityMeasured, record.value, record.headers)
            if isinstance(event, Rejected):
                continue
            if start.lstrip("-").isdecimal():
                _keep(book, int(start), event)
            elif event is not None:
                book.standing = event.standing

    def begin(self, beginning: int, committed: int | None) -> int:
        """Where it stopped."""
        return go_on(beginning, committed)

    def derive(self, records: Sequence[ConsumerRecord]) -> Step[Judged]:
        """What follows from a batch of notes, in their order."""
        state, dead, arrivals = Judged(), list[DeadLetter](), list[Output]()
        for record in records:
            event = decode(QualityNoted, record.value, record.headers)
            if isinstance(event, Rejected):
                dead.append(DeadLetter(record, event.code, event.reason))
                continue
            rules = self._rules(event.pipeline)
            if rules is None:
                dead.append(DeadLetter(record, "no-such-pipeline", _unknown(event.pipeline)))
                continue
            noted_at = moment(record.timestamp // 1000)
            arrivals += _note(self._open(event.pipeline, state), event, rules, noted_at)
        state.events = [each for book in state.books.values() for each in book.judged]
        changes = [output for book in state.books.values() for output in _changes(book, self._books)]
        return Step([*changes, *map(_judged, state.events), *arrivals], dead, state)

    def _open(self, pipeline: str, state: Judged) -> Book:
        """The pipeline's book, to write in."""
        if pipeline not in state.books:
            state.books[pipeline] = self._books.get(pipeline, Book(pipeline)).copy()
        return state.books[pipeline]

    def apply(self, state: Judged) -> None:
        """The transaction is committed."""
        for pipeline, book in state.books.items():
            book.touched, book.judged = set(), []
            self._books[pipeline] = book

    @property
    def standings(self) -> Mapping[str, QualityStanding]:
        """Where each pipeline's data stands."""
        return {name: book.standing for name, book in self._books.items() if book.standing is not None}


def _unknown(pipeline: str) -> str:
    return f"no pipeline {pipeline!r} is defined; apply its file, then replay the dead letters"


def _keep(book: Book, start: int, event: QualityMeasured | None) -> None:
    if event is None or event.window is None:
        book.windows.pop(start, None)
    else:
        book.windows[start] = event.window


def _note(book: Book, event: QualityNoted, rules: Rules, noted_at: datetime) -> Iterator[Output]:
    """One note; the announcement of new data comes after everything before it was judged."""
    if event.accepted is not None:
        book.accept(event.accepted, rules)
    if event.tallied is not None:
        book.add(event.tallied, rules, noted_at)
        if event.tallied.arrived is not None:
            yield _data_arrived(book, event.tallied, event.tallied.arrived)


def _data_arrived(book: Book, tallied: Tallied, arrived: Sequence[int]) -> Output:
    log, records = f"{names.LOG}.{book.pipeline}", sum(arrived)
    identifier = derived_id(f"{log}-{tallied.partition}-{records}", "data-arrived")
    reason = blocked_reason(book.standing)
    event = DataArrived(
        id=identifier,
        pipeline=book.pipeline,
        partition=tallied.partition,
        observations=arrived[0],
        labels=arrived[1],
        known_at=tallied.known_at,
        blocked=reason is not None,
        blocked_reason=reason,
        quality_revision=0 if book.standing is None else book.standing.revision,
    )
    value, headers = encode(event, id=identifier, source=names.source_of(book.pipeline), time=event.known_at)
    return Output(names.DATA_ARRIVED_TOPIC, 0, book.pipeline.encode(), value, headers)


def _judged(event: QualityJudged) -> Output:
    source = names.source_of(event.pipeline)
    value, headers = encode(event, id=event.id, source=source, time=event.known_at)
    return Output(names.JUDGED_TOPIC, 0, event.pipeline.encode(), value, headers)


def _changes(book: Book, before: Mapping[str, Book]) -> Iterator[Output]:
    """The windows and the standing that are not what they were; a window that is gone is a tombstone."""
    assert book.standing is not None or not book.touched
    for start in sorted(book.touched):
        window = book.windows.get(start)
        event = None if window is None else QualityMeasured(pipeline=book.pipeline, window=window)
        yield _measured(window_key(book.pipeline, start), book, event)
    old = before.get(book.pipeline)
    if book.standing is not None and (old is None or old.standing != book.standing):
        standing = QualityMeasured(pipeline=book.pipeline, standing=book.standing)
        yield _measured(book.pipeline.encode(), book, standing)


def _measured(key: bytes, book: Book, event: QualityMeasured | None) -> Output:
    if event is None:
        return Output(names.MEASURED_TOPIC, 0, key, None)
    assert book.standing is not None
    time = book.standing.known_at
    identifier = f"{key.decode()}@{seconds(time)}"
    value, headers = encode(event, id=identifier, source=names.source_of(book.pipeline), time=time)
    return Output(names.MEASURED_TOPIC, 0, key, value, headers)
