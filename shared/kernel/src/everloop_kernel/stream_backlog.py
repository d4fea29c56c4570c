"""The records that were delivered to a partition and not yet handled."""

from collections import deque
from collections.abc import Sequence

from aiokafka import ConsumerRecord

__all__ = ["Backlog"]

_MAX_BYTES = 8 << 20


class Backlog:
    """A queue that knows how full it is: by records and by bytes."""

    def __init__(self, batch_records: int) -> None:
        self._batch_records = batch_records
        self._chunks: deque[tuple[Sequence[ConsumerRecord], int]] = deque()
        self._bytes = 0
        self._records = 0

    def __len__(self) -> int:
        return self._records

    @property
    def is_full(self) -> bool:
        """Whether there is more than the next two batches need."""
        return self._records >= 2 * self._batch_records or self._bytes >= _MAX_BYTES

    @property
    def is_enough(self) -> bool:
        """Whether it fills a transaction."""
        return self._records >= self._batch_records or self._bytes >= _MAX_BYTES // 2

    @property
    def is_low(self) -> bool:
        """Whether more should be fetched."""
        return not self.is_enough

    def put(self, records: Sequence[ConsumerRecord]) -> None:
        """Append delivered records."""
        size = _bytes(records)
        self._chunks.append((records, size))
        self._records += len(records)
        self._bytes += size

    def take(self, most: int | None = None) -> list[ConsumerRecord]:
        """Remove the next batch: as much of the backlog as one transaction may hold, at most `most`."""
        batch: list[ConsumerRecord] = []
        wanted = self._batch_records if most is None else min(most, self._batch_records)
        while self._chunks and len(batch) < wanted:
            chunk, size = self._chunks.popleft()
            if len(batch) + len(chunk) > wanted:
                chunk, rest = chunk[: wanted - len(batch)], chunk[wanted - len(batch) :]
                left = _bytes(rest)
                self._chunks.appendleft((rest, left))
                size -= left
            batch.extend(chunk)
            self._bytes -= size
        self._records -= len(batch)
        return batch

    def clear(self) -> None:
        """Forget everything: it will be delivered again."""
        self._chunks.clear()
        self._records = self._bytes = 0


def _bytes(records: Sequence[ConsumerRecord]) -> int:
    """Keys and headers too: a record of two megabytes may have no value."""
    return sum(
        [
            len(record.key or b"")
            + len(record.value or b"")
            + sum([len(name) + len(value or b"") for name, value in record.headers])
            for record in records
        ]
    )
