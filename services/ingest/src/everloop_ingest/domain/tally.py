"""How much a log partition holds: counted record by record, remembered in the log itself."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

__all__ = ["Tally"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Tally:
    """Accepted observations and labels of a partition since its beginning, and its pipeline time."""

    observations: int = 0
    labels: int = 0
    known_at: datetime = _EPOCH
    """The highest known_at."""

    @property
    def records(self) -> int:
        """Observations and labels together."""
        return self.observations + self.labels

    def plus(self, observations: int, labels: int, known_at: datetime) -> Self:
        """The tally after more records, of which `known_at` is the latest."""
        latest = max(self.known_at, known_at)
        return type(self)(self.observations + observations, self.labels + labels, latest)

    def crossed(self, earlier: Self, every: int) -> bool:
        """Whether a multiple of `every` records was reached since `earlier`."""
        return self.records // every > earlier.records // every

    def written(self) -> bytes:
        """The header's value that the last record of each transaction carries."""
        microseconds = (self.known_at - _EPOCH) // timedelta(microseconds=1)
        return b"%d,%d,%d" % (self.observations, self.labels, microseconds)

    @classmethod
    def read(cls, text: bytes | None) -> Self | None:
        """What `written` wrote; None for anything else."""
        parts = (text or b"").split(b",")
        try:
            observations, labels, microseconds = map(int, parts)
            return cls(observations, labels, _EPOCH + timedelta(microseconds=microseconds))
        except (ValueError, OverflowError):
            return None
