"""What a sample says about each of its columns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from everloop.first_steps.cells import Form, Series, find_form, read, texts_of
from everloop.first_steps.names import NameBook, words_of
from everloop.first_steps.sample import Sample

__all__ = ["TIME_WORDS", "Column", "FieldType", "columns_of"]

FieldType = Literal["category", "number", "integer", "boolean", "string", "timestamp"]
TIME_WORDS = frozenset(
    {"time", "date", "timestamp", "ts", "datetime", "at", "epoch", "day", "when", "hour", "created"}
)
MOST_LISTED = 20
_SEEN_OFTEN = 5
_FREE_TEXT_SHARE = 0.5
_FREE_TEXT_LEAST = 50
_ODD_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Column:
    """One column, as the sample has it."""

    position: int
    header: str
    name: str
    """Its field's name."""
    type: FieldType
    form: Form
    rows: int
    missing: int
    """Cells without a value of the type, the odd ones among them."""
    distinct: int
    low: float | datetime | None
    high: float | datetime | None
    values: Sequence[str]
    """The most frequent values of text, most frequent first; all of them where `is_listed`."""
    is_listed: bool
    """Whether its values are few, each seen often."""
    odd: Sequence[str]
    """Cells that do not have the type of the others."""

    @property
    def is_empty(self) -> bool:
        """Whether no cell holds anything."""
        return self.missing == self.rows

    @property
    def is_unique(self) -> bool:
        """Whether each row has a value of its own."""
        return self.missing == 0 and self.distinct == self.rows

    @property
    def words(self) -> Sequence[str]:
        """The words of its header."""
        return words_of(self.header)


def columns_of(sample: Sample) -> list[Column]:
    """Every column of the sample, in the file's order."""
    book = NameBook()
    decimal_comma = sample.source.delimiter not in (None, ",")
    headers = sample.source.headers
    return [
        _column(number, header, book.field(header, number), sample.frame[number], decimal_comma=decimal_comma)
        for number, header in enumerate(headers)
    ]


def _column(position: int, header: str, name: str, cells: Series, *, decimal_comma: bool) -> Column:
    is_time = not TIME_WORDS.isdisjoint(words_of(header))
    form = find_form(cells, is_time=is_time, decimal_comma=decimal_comma)
    values = read(cells, form)
    present = values.dropna()
    counts = present.value_counts()
    ordered = form.kind in ("integer", "number", "timestamp") and len(present) > 0
    listed = len(counts) <= MOST_LISTED and bool((counts >= _SEEN_OFTEN).all()) and len(counts) > 1
    return Column(
        position=position,
        header=header,
        name=name,
        type=_type(form, len(present), counts),
        form=form,
        rows=len(cells),
        missing=len(cells) - len(present),
        distinct=len(counts),
        low=_plain(present.min()) if ordered else None,
        high=_plain(present.max()) if ordered else None,
        values=list(counts.index[:MOST_LISTED]) if form.kind == "text" else [],
        is_listed=form.kind == "text" and listed,
        odd=_odd(cells, values),
    )


def _plain(value: object) -> float | datetime | None:
    if isinstance(value, datetime):
        return value
    return float(value) if isinstance(value, float) and math.isfinite(value) else None


def _type(form: Form, present: int, counts: Series) -> FieldType:
    if form.kind != "text":
        return form.kind
    many = len(counts) > _FREE_TEXT_SHARE * present and len(counts) > _FREE_TEXT_LEAST
    return "string" if many else "category"


def _odd(cells: Series, values: Series) -> list[str]:
    texts = texts_of(cells) if cells.dtype.kind not in "iufbM" else values
    odd = texts[values.isna() & texts.notna()]
    return [str(text)[:40] for text in odd.drop_duplicates()[:_ODD_SHOWN]]
