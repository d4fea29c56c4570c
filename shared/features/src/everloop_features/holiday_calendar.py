"""Public holidays by country, from the pinned `holidays` package, so that all hosts agree.

The package is loaded when the first pipeline asks for holidays: it takes a second and 25 MB.
"""

import re
from collections.abc import Callable
from datetime import date
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

__all__ = ["holidays_of"]

_CODE = re.compile(r"([A-Z]{2,3})(?:-([A-Za-z0-9]{1,5}))?")


@cache
def holidays_of(code: str) -> Callable[[date], bool]:
    """Whether a day is a holiday of a country (`US`) or of a part of one (`US-NY`).

    A year's holidays are computed once and kept as a set of days. Raises KeyError for an unknown country.
    """
    parts = _CODE.fullmatch(code)
    if parts is None:
        raise KeyError(code)
    country, part = parts.groups()
    calendar: Any = import_module("holidays").country_holidays
    try:
        calendar(country, subdiv=part)
    except NotImplementedError as error:
        raise KeyError(code) from error

    @lru_cache(maxsize=256)
    def days_of(year: int) -> frozenset[date]:
        return frozenset(calendar(country, subdiv=part, years=year, expand=False))

    return lambda day: day in days_of(day.year)
