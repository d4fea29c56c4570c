"""From any column header to a name that the pipeline file and the feature language take."""

import keyword
import re
import unicodedata
from collections.abc import Iterable, Sequence

from everloop_schemas.pipeline_parts import RESERVED_NAMES

__all__ = ["NameBook", "pipeline_name", "words_of"]

_LONGEST = 50
"""Characters; leaves room for what is added to tell two names apart."""
_NOT_TEXT = frozenset({"true", "false", "yes", "no", "on", "off", "null"})
"""Words that YAML 1.1 takes for a truth value or for nothing, in small or in capital letters."""
_USABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def words_of(text: str) -> Sequence[str]:
    """The lower-case ASCII words of a header.

    Example:
        >>> words_of("Dép. Time (min)"), words_of("arrDelay")
        (['dep', 'time', 'min'], ['arr', 'delay'])
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.findall(r"[a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", plain).lower())


def pipeline_name(text: str) -> str:
    """A pipeline's name from a file's.

    Example:
        >>> pipeline_name("2013 Flights (final)")
        'p-2013-flights-final'
    """
    name = "-".join(words_of(text))[:_LONGEST].strip("-") or "pipeline"
    return name if name[0].isalpha() and name not in _NOT_TEXT else f"p-{name}"


class NameBook:
    """Gives each name once. `taken` are names that nobody may get."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def field(self, header: str, position: int) -> str:
        """The name of the column at `position` (from 0); its header itself where that is usable."""
        if not _USABLE.fullmatch(header) or len(header) > _LONGEST:
            header = "_".join(words_of(header))[:_LONGEST]
        if not header:
            header = f"column_{position + 1}"
        elif not header[0].isalpha():
            header = f"column_{header.lstrip('_')}"
        return self.free(header)

    def free(self, wanted: str) -> str:
        """`wanted`, or the nearest name that is neither taken nor a word of the platform."""
        if keyword.iskeyword(wanted) or wanted in RESERVED_NAMES or wanted.lower() in _NOT_TEXT:
            wanted = f"{wanted}_value"
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name
