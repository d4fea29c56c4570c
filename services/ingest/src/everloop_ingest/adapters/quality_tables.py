"""What trainings say the data is like, and what the judge says of it: two compacted topics as tables."""

import logging
from collections import defaultdict
from collections.abc import Sequence

from everloop_kernel.settings import KafkaSettings
from everloop_kernel.table import Table
from everloop_schemas.cloudevents import Rejected, decode
from everloop_schemas.events import DataProfiled, QualityMeasured

__all__ = ["Measured", "Profiles"]

log = logging.getLogger(__name__)

Headers = Sequence[tuple[str, bytes | None]]


class Profiles:
    """The newest profile of each pipeline."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.table = Table(kafka, [DataProfiled.topic], on_change=self._changed, name="data profiles")
        self._profiles: dict[str, DataProfiled] = {}

    def get(self, pipeline: str) -> DataProfiled | None:
        """The profile of the newest training; None before the first."""
        return self._profiles.get(pipeline)

    def _changed(self, _topic: str, key: bytes, value: bytes | None, headers: Headers) -> None:
        name = key.decode("utf-8", "replace")
        event = None if value is None else decode(DataProfiled, value, headers)
        if isinstance(event, Rejected):
            log.error("the data profile of %s cannot be read: %s", name, event.reason)
        elif event is None:
            self._profiles.pop(name, None)
        else:
            self._profiles[name] = event
            log.info("new data of %s is held against the profile of run %s", name, event.run_id)


class Measured:
    """Windows and standings as bytes: they are read only when somebody asks."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.table = Table(kafka, [QualityMeasured.topic], on_change=self._changed, name="data quality")
        self._entries: defaultdict[str, dict[str, tuple[bytes, Headers]]] = defaultdict(dict)

    def of(self, pipeline: str) -> list[QualityMeasured]:
        """A pipeline's windows, in their order, and its standing (first)."""
        entries = self._entries.get(pipeline, {})
        read = (decode(QualityMeasured, *entries[start]) for start in sorted(entries, key=_order))
        return [event for event in read if not isinstance(event, Rejected)]

    def _changed(self, _topic: str, key: bytes, value: bytes | None, headers: Headers) -> None:
        pipeline, _, start = key.decode("utf-8", "replace").partition("/")
        if value is None:
            self._entries[pipeline].pop(start, None)
        else:
            self._entries[pipeline][start] = (value, headers)


def _order(start: str) -> int:
    return int(start) if start.lstrip("-").isdecimal() else -(1 << 62)
