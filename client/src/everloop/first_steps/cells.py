"""What a column's cells are, and how they are read: the same for a sample and for every row of the file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from everloop.first_steps.times import EPOCHS, read_times, time_forms

__all__ = ["NULL_WORDS", "Form", "Series", "find_form", "read", "texts_of"]

Series = pd.Series  # its values' type is only known when the file is read
Kind = Literal["integer", "number", "boolean", "timestamp", "text"]

NULL_WORDS = frozenset({"", "na", "n/a", "nan", "null", "none", "nil", "?", "-", "#n/a"})
"""Lower-case texts that mean that there is no value."""
_TRUTHS: tuple[Mapping[str, bool], ...] = tuple(
    {yes: True, no: False}
    for yes, no in (("true", "false"), ("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off"))
)
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_INTEGER = r"[+-]?\d+"
_CODE = r"[+-]?0\d+"
_LARGEST_WHOLE = 2**53
_LONGEST_WHOLE = 17  # characters, with a sign
_SURELY_EXACT_DIGITS = 15
_MOSTLY = 0.95
_ENOUGH = 20


@dataclass(frozen=True, slots=True)
class Form:
    """How the cells of one column are written."""

    kind: Kind
    decimal_comma: bool = False
    truth: Mapping[str, bool] | None = None
    times: Sequence[str] = ()
    """Formats of timestamps, in the order in which they are tried."""
    note: str = ""
    """What a person should know about them."""


def texts_of(cells: Series) -> Series:
    """Text without spaces around it; missing where a cell is empty or says that nothing is there."""
    texts = cells.astype("string").str.strip()
    missing = texts.str.lower().isin(NULL_WORDS) | texts.isna()
    return texts.mask(missing, None).astype(object).where(~missing, None)


def find_form(cells: Series, *, is_time: bool, decimal_comma: bool) -> Form:
    """The form that all of a column's cells have, or nearly all.

    `is_time` says that the header speaks of time: whole numbers may then be dates or seconds since 1970.
    """
    native = _native(cells)
    if native:
        return native
    texts = texts_of(cells).dropna()
    found = _truth(texts) or _numbers(texts, decimal_comma=decimal_comma)
    if found is not None:
        epoch = _whole_times(texts) if is_time and found.kind == "integer" else None
        return epoch or found
    formats, note = time_forms(texts.drop_duplicates())
    if formats and _is_most(read_times(texts, formats).notna()):
        return Form("timestamp", times=formats, note=note)
    return Form("text", note=_code_note(texts))


def _native(cells: Series) -> Form | None:
    """The form of a typed (Parquet) column."""
    kind = cells.dtype.kind
    if kind == "b":
        return Form("boolean")
    if kind in "iu":
        return Form("integer")
    if kind == "f":
        present = cells[np.isfinite(cells)]
        whole = len(present) > 0 and bool((present == present.round()).all())
        return Form("integer" if whole and bool(cells.isna().any()) else "number")
    if kind == "M":
        zone = getattr(cells.dtype, "tz", None)
        return Form("timestamp", note="" if zone else "times without a zone are taken as UTC")
    values = cells.dropna()
    return Form("boolean") if len(values) and all(isinstance(value, bool) for value in values) else None


def _truth(texts: Series) -> Form | None:
    words = set(texts.str.lower().unique()) if len(texts) else set()
    for truth in _TRUTHS:
        if words and words <= truth.keys():
            note = "" if "true" in truth else f"written as {'/'.join(truth)}: records say true or false"
            return Form("boolean", truth=truth, note=note)
    return None


def _numbers(texts: Series, *, decimal_comma: bool) -> Form | None:
    """Whole numbers, numbers, or neither. `007` is a code and no number, and so is a long identifier."""
    if not len(texts) or texts.str.fullmatch(_CODE).any():
        return None
    plain = texts.str.replace(",", ".", regex=False) if decimal_comma else texts
    fits = plain.str.fullmatch(_NUMBER)
    if not _is_most(fits):
        return None
    if bool(plain[fits].str.fullmatch(_INTEGER).all()):
        return Form("integer") if _are_exact(plain[fits]) else None
    comma = decimal_comma and bool(texts[fits].str.contains(",", regex=False).any())
    note = "written with a decimal comma: records have a point" if comma else ""
    return Form("number", decimal_comma=comma, note=note)


def _are_exact(texts: Series) -> bool:
    """Whether no whole number is too long for a JSON number; pandas reads those as it likes, as text too."""
    long = texts[texts.str.len() > _SURELY_EXACT_DIGITS]
    return all(len(text) <= _LONGEST_WHOLE and abs(int(text)) <= _LARGEST_WHOLE for text in long)


def _whole_times(texts: Series) -> Form | None:
    for name, words in EPOCHS.items():
        if _is_most(read_times(texts, [name]).notna()):
            return Form("timestamp", times=(name,), note=f"written as {words}: records have RFC 3339 text")
    return None


def _code_note(texts: Series) -> str:
    is_code = len(texts) and bool(texts.str.fullmatch(r"[+-]?\d+").all())
    return "digits that are no quantity (leading zeros, or too long): kept as text" if is_code else ""


def _is_most(fits: Series) -> bool:
    """All of few cells; of many, one in twenty may be something else."""
    share = float(fits.mean()) if len(fits) else 0.0
    return share == 1 or (share >= _MOSTLY and len(fits) >= _ENOUGH)


def read(cells: Series, form: Form) -> Series:
    """The cells' values: floats, bools, times in UTC or text; NaN, NaT or None where one is missing."""
    match form.kind:
        case "integer" | "number":
            return _read_numbers(cells, form)
        case "boolean":
            return _read_truth(cells, form)
        case "timestamp":
            native = cells.dtype.kind == "M"
            return pd.to_datetime(cells, utc=True) if native else read_times(texts_of(cells), form.times)
        case _:
            return texts_of(cells)


def _read_numbers(cells: Series, form: Form) -> Series:
    if cells.dtype.kind in "iuf":
        numbers = cells.astype("float64")
    else:
        texts = texts_of(cells).astype("string")
        plain = texts.str.replace(",", ".", regex=False) if form.decimal_comma else texts
        fits = plain.str.fullmatch(_NUMBER if form.kind == "number" else _INTEGER).fillna(value=False)
        numbers = pd.to_numeric(plain.where(fits)).astype("float64")
    return numbers.where(np.isfinite(numbers))


def _read_truth(cells: Series, form: Form) -> Series:
    if form.truth is None:
        return cells.astype(object).where(cells.notna(), None)
    words: Series = texts_of(cells).astype("string").str.lower()
    found: Series = words.map(dict(form.truth)).astype(object)
    return found.where(found.notna(), None)
