"""Timestamps as files write them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

__all__ = ["EPOCHS", "read_times", "time_forms"]

Series = pd.Series  # of text

_ISO = "ISO8601"
_LOOKS_ISO = r"\d{4}-\d\d?-\d\d?(?:[T ].*)?"
_LOOKS_TIME = r"(?:\d{1,4}[-/. ][A-Za-z0-9]{1,3}[-/. ]\d{1,4}|[A-Za-z]{3,9} \d\d?, \d{4}).*"
_LOOKS_DAY = r"(?:19|20)\d{6}"
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_CERTAIN = ("%Y/%m/%d", "%d.%m.%Y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y")
_MONTH_FIRST = ("%m/%d/%Y", "%m-%d-%Y")
_DAY_FIRST = ("%d/%m/%Y", "%d-%m-%Y")

EPOCHS: Mapping[str, str] = {"%Y%m%d": "YYYYMMDD", "s": "seconds since 1970", "ms": "milliseconds since 1970"}
"""How whole numbers may be times."""
_EPOCH_SECONDS = (3e8, 4e9)
"""1979 to 2096: other numbers are more likely something else."""


def time_forms(texts: Series) -> tuple[tuple[str, ...], str]:
    """The formats that are needed to read these texts, none where they are no times, and what to know."""
    texts = texts[texts.str.fullmatch(_LOOKS_TIME)]
    if not len(texts):
        return (), ""
    base = [_ISO, *_with_clocks(_CERTAIN)]
    month_first = _needed(texts, [*base, *_with_clocks(_MONTH_FIRST)])
    day_first = _needed(texts, [*base, *_with_clocks(_DAY_FIRST)])
    by_month, by_day = read_times(texts, month_first), read_times(texts, day_first)
    formats = day_first if by_day.notna().sum() > by_month.notna().sum() else month_first
    return formats, _note(texts, formats, is_open=month_first != day_first and _same_count(by_month, by_day))


def _same_count(left: Series, right: Series) -> bool:
    return int(left.notna().sum()) == int(right.notna().sum())


def _with_clocks(dates: Sequence[str]) -> list[str]:
    return [date + clock for date in dates for clock in _CLOCKS]


def _needed(texts: Series, formats: Sequence[str]) -> tuple[str, ...]:
    """Those that read something which none before has read."""
    found, rest = [], texts
    for one in formats:
        read = read_times(rest, [one]).notna() if len(rest) else None
        if read is not None and read.any():
            found.append(one)
            rest = rest[~read]
    return tuple(found)


def _note(texts: Series, formats: Sequence[str], *, is_open: bool) -> str:
    notes = []
    if is_open:
        notes.append("whether the day or the month comes first cannot be seen: the month, it is assumed")
    if len(formats) > 1:
        notes.append(f"written in {len(formats)} forms ({', '.join(formats)})")
    if formats and formats != (_ISO,):
        notes.append("records have RFC 3339 text")
    if formats and not texts.str.contains(r"(?:Z|[+-]\d\d:?\d\d)$").any():
        notes.append("times without a zone are taken as UTC")
    return "; ".join(notes)


def read_times(texts: Series, formats: Sequence[str]) -> Series:
    """Times in UTC, each read by the first format that fits; NaT where none does."""
    found = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[us, UTC]")
    rest = texts.dropna()
    for one in formats:
        if not len(rest):
            break
        times = _read(rest, one).dropna()
        found.loc[times.index] = times
        rest = rest.drop(times.index)
    return found


def _read(texts: Series, form: str) -> Series:
    if form in ("s", "ms"):
        numbers = pd.to_numeric(texts, errors="coerce") / (1000 if form == "ms" else 1)
        low, high = _EPOCH_SECONDS
        fits = numbers[(numbers >= low) & (numbers <= high)]
        return _micro(pd.to_datetime(fits.astype("float64"), unit="s", utc=True))
    shape = {_ISO: _LOOKS_ISO, "%Y%m%d": _LOOKS_DAY}.get(form, _LOOKS_TIME)
    fits = texts[texts.str.fullmatch(shape)]
    return _micro(pd.to_datetime(fits, format=form, utc=True, errors="coerce"))


def _micro(times: Any) -> Series:
    found: Series = times.astype("datetime64[us, UTC]")
    return found
