"""How far each log partition has come: a window is whole once none that still reports is before its end.

While partitions catch up (after an outage, or with history that is published at once) they are hours apart in
pipeline time. The one ahead would have windows judged that hold its keys alone: too few rows, wrong shares.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from everloop_schemas.events import PartitionClock

__all__ = ["IDLE", "moved", "slowest"]

IDLE: Final = timedelta(seconds=60)
"""A partition that told nothing for so long while others did has nothing to tell: nobody waits for it."""


def moved(
    clocks: Sequence[PartitionClock], partition: int, known_at: datetime, noted_at: datetime
) -> list[PartitionClock]:
    """The clocks, ordered by partition, once a partition has come to `known_at`; no clock goes back."""
    by_partition = {clock.partition: clock for clock in clocks}
    before = by_partition.get(partition)
    if before is not None:
        known_at, noted_at = max(known_at, before.known_at), max(noted_at, before.noted_at)
    by_partition[partition] = PartitionClock(partition=partition, known_at=known_at, noted_at=noted_at)
    return [by_partition[each] for each in sorted(by_partition)]


def slowest(clocks: Sequence[PartitionClock]) -> datetime:
    """The pipeline time that every partition has come to which is not idle; there must be a clock."""
    newest = max(clock.noted_at for clock in clocks)
    return min(clock.known_at for clock in clocks if newest - clock.noted_at <= IDLE)
