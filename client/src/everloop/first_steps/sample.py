"""A CSV or Parquet file as frames of columns numbered from 0, and a sample of it, in bounded memory."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from everloop.errors import EverloopError, UsageError

__all__ = ["SAMPLE_ROWS", "Sample", "Source", "open_source", "take_sample"]

SAMPLE_ROWS = 100_000
_BLOCK_BYTES = 4 << 20
_BATCH_ROWS = 50_000
_HEAD_BYTES = 1 << 16
_DELIMITERS = ",;\t|"
_AS_UTF8 = "Save it as UTF-8, for example: iconv -f ISO-8859-1 -t UTF-8 OLD > NEW"


@dataclass(frozen=True, slots=True)
class Source:
    """A file that can be read from its beginning, any number of times."""

    path: Path
    headers: Sequence[str]
    delimiter: str | None
    """Of a CSV file; None for Parquet."""

    def frames(self) -> Iterator[pd.DataFrame]:
        """All rows, some ten thousand at a time; a CSV file's cells are text as it stands there."""
        try:
            yield from self._csv() if self.delimiter else self._parquet()
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            mend = _AS_UTF8 if "UTF8" in str(error) else "Mend that row, or take it out."
            raise EverloopError(f"{self.path} cannot be read: {error}", mend) from error

    def _csv(self) -> Iterator[pd.DataFrame]:
        names = [str(number) for number in range(len(self.headers))]
        try:
            reader = arrow_csv.open_csv(
                self.path,
                read_options=arrow_csv.ReadOptions(
                    column_names=names, skip_rows=1, block_size=_BLOCK_BYTES, use_threads=False
                ),
                parse_options=arrow_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            raise
        for batch in reader:
            yield _frame(batch)

    def _parquet(self) -> Iterator[pd.DataFrame]:
        for batch in parquet.ParquetFile(self.path).iter_batches(_BATCH_ROWS):
            yield _frame(batch)


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows spread evenly over a whole file."""

    source: Source
    frame: pd.DataFrame
    rows: int
    """Of the file; the frame may have fewer."""

    @property
    def is_whole(self) -> bool:
        """Whether the sample is the whole file."""
        return len(self.frame) == self.rows


def open_source(path: Path) -> Source:
    """Look at a file's head. Raises UsageError for another kind of file, EverloopError for a broken one."""
    kind = path.suffix.lower()
    if kind not in (".csv", ".tsv", ".txt", ".parquet"):
        raise UsageError(f"{path} is no CSV or Parquet file.", "Name a file that ends in .csv or .parquet.")
    try:
        source = _parquet_source(path) if kind == ".parquet" else _csv_source(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise EverloopError(f"{path} cannot be read: {error}", "Name a file that exists.") from error
    if not source.headers:
        raise EverloopError(f"{path} has no columns.", "Its first line names them.")
    return source


def _parquet_source(path: Path) -> Source:
    return Source(path, list(parquet.ParquetFile(path).schema_arrow.names), None)


def _csv_source(path: Path) -> Source:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    try:
        text = head.decode("utf-8-sig", "ignore" if len(head) == _HEAD_BYTES else "strict")
    except UnicodeDecodeError as error:
        raise EverloopError(f"{path} is no UTF-8 text: {error}", _AS_UTF8) from error
    if "\x00" in text:
        raise EverloopError(f"{path} is no UTF-8 text: it holds NUL characters.", _AS_UTF8)
    line = text.partition("\n")[0].rstrip("\r")
    delimiter = max(_DELIMITERS, key=line.count)
    headers = next(csv.reader([line], delimiter=delimiter), [])
    _require_header(path, headers)
    return Source(path, headers, delimiter)


def _require_header(path: Path, headers: Sequence[str]) -> None:
    """A first line of numbers alone is data: its values would become names, and a row would be lost."""
    if headers and all(_is_number(cell) for cell in headers):
        raise EverloopError(
            f"The first line of {path} holds numbers, no names: {', '.join(headers)[:80]}",
            "Write the columns' names in its first line.",
        )


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _frame(batch: pa.RecordBatch) -> pd.DataFrame:
    """By position: names may stand there twice. What a field cannot hold (lists, bytes) is all missing."""
    columns = {number: _series(column) for number, column in enumerate(batch.columns)}
    return pd.DataFrame(columns, index=range(batch.num_rows))


def _series(column: pa.Array) -> "pd.Series[Any]":
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type) or pa.types.is_null(column.type):
        return pd.Series([None] * len(column), dtype=object)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_integer(column.type) and column.null_count:
        column = column.cast(pa.float64(), safe=False)
    found: pd.Series[Any] = column.to_pandas(date_as_object=False)
    return found


def take_sample(source: Source, limit: int = SAMPLE_ROWS) -> Sample:
    """Between `limit` and twice as many rows, each k-th of the file; all of a file that has no more."""
    thinned = _Thinned(limit)
    for frame in source.frames():
        thinned.add(frame)
    if not thinned.rows:
        raise EverloopError(f"{source.path} has no rows.", "A sample of some hundred rows says enough.")
    return Sample(source, thinned.frame(), thinned.rows)


class _Thinned:
    """Keeps each k-th row; k doubles whenever too many are held."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._step = 1
        self._held: list[pd.DataFrame] = []
        self.rows = 0

    def add(self, frame: pd.DataFrame) -> None:
        """Take the file's next rows."""
        first = -self.rows % self._step
        self._held.append(frame.iloc[first :: self._step])
        self.rows += len(frame)
        while sum(map(len, self._held)) > 2 * self._limit:
            self._step *= 2
            self._held = [self.frame().iloc[::2]]

    def frame(self) -> pd.DataFrame:
        """The rows held, in the file's order."""
        return pd.concat(self._held, ignore_index=True)
