"""Regular expressions of a pipeline file, matched by RE2: in time linear in the text, whatever both are.

Python's own `re` backtracks: one hostile text could hold a worker for ever.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import re2

__all__ = ["PatternError", "compile_pattern"]

_MOST_BYTES: Final = 1 << 20
"""Memory that one compiled expression may take; a larger one is refused when the file is checked."""
_REMEMBERED: Final = 4096
_SHORT: Final = 64
"""Characters of a text whose answer is remembered: categories repeat, and RE2's binding takes 3 µs a call."""


class PatternError(ValueError):
    """The text is no regular expression of RE2's syntax, or too large a one."""


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Whether a whole text matches `pattern`.

    Raises:
        PatternError: saying what is wrong with it.

    Example:
        >>> compile_pattern("[A-Z]{3}")("EWR"), compile_pattern("[A-Z]{3}")("EWR1")
        (True, False)
    """
    options = re2.Options()
    options.max_mem = _MOST_BYTES
    options.log_errors = False
    options.never_capture = True
    try:
        compiled = re2.compile(pattern.encode(), options)
    except (re2.error, UnicodeEncodeError) as error:
        raise PatternError(f"{pattern[:80]!r} is no regular expression: {_reason(error)}") from error
    return _Matcher(compiled.fullmatch)


class _Matcher:
    """A compiled expression that remembers its answers to short texts."""

    def __init__(self, fullmatch: Callable[[bytes], object | None]) -> None:
        self._fullmatch = fullmatch
        self._remembered = lru_cache(_REMEMBERED)(self._matches)

    def __call__(self, text: str) -> bool:
        return self._remembered(text) if len(text) <= _SHORT else self._matches(text)

    def _matches(self, text: str) -> bool:
        try:
            return self._fullmatch(text.encode()) is not None
        except UnicodeEncodeError:  # half a surrogate pair: no text, so no match
            return False


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
