"""Which days are over, in pipeline time."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final

__all__ = ["GRACE", "IDLE", "day_of", "last_complete_day", "watermark"]

GRACE: Final = timedelta(hours=1)
"""Late records may still come for so long after midnight."""
IDLE: Final = timedelta(days=1)
"""A partition that is so far behind the others has no data; it does not hold the days back."""


def day_of(moment: datetime) -> date:
    """The UTC day of a moment."""
    return moment.astimezone(UTC).date()


def watermark(known_at: Iterable[datetime]) -> datetime | None:
    """How far every live partition has come; None before the first record."""
    moments = list(known_at)
    if not moments:
        return None
    newest = max(moments)
    return min(moment for moment in moments if newest - moment <= IDLE)


def last_complete_day(reached: datetime, delay: timedelta = GRACE) -> date:
    """The newest day that ended at least `delay` before `reached`."""
    return day_of(reached - delay) - timedelta(days=1)
