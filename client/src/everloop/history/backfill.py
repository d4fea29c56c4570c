"""A pipeline's history, checked and sent."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from everloop_kernel.settings import KafkaSettings
from everloop_schemas.pipeline import Pipeline

from everloop.errors import EverloopError
from everloop.history.checking import Checked, CheckEdge, check_records
from everloop.history.log import Log, run
from everloop.history.publishing import Progress, publish_history
from everloop.history.records import HistoryFiles, in_order

__all__ = ["Backfill", "Plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What sending would do; `seconds` is a guess from the rate, or from how fast the check went."""

    checked: Checked
    published: int
    seconds: float
    unused_columns: tuple[str, ...]
    log_has_others: bool

    @property
    def records(self) -> int:
        """All of them, refused ones too."""
        return self.checked.observations + self.checked.labels


class Backfill:
    """One history of one pipeline: the same files, source and definition are the same history."""

    def __init__(
        self,
        kafka: KafkaSettings,
        pipeline: Pipeline,
        files: HistoryFiles,
        *,
        source: str,
        ask: CheckEdge,
        folder: Path,
    ) -> None:
        if source not in pipeline.observation.replay_sources:
            raise EverloopError(
                f"{source!r} may not say when its records were known.",
                f"Add it to observation.replay_sources of {pipeline.pipeline} and apply the file.",
            )
        self._kafka = kafka
        self._pipeline = pipeline
        self._files = files
        self._source = source
        self._ask = ask
        self._unused = files.check(pipeline)
        self._progress = Progress(folder, pipeline.pipeline, self._identity())

    def check(self, rate: float | None = None) -> Plan:
        """Ask ingest about every row; nothing is published."""
        began = time.monotonic()
        checked = check_records(self._files.records(self._pipeline), self._ask)
        took, published = time.monotonic() - began, self._progress.published
        left = checked.observations + checked.labels - published
        share = left / max(1, left + published)
        seconds = took * share if rate is None else left / rate
        has_others = published == 0 and run(Log(self._kafka, self._pipeline.pipeline).has_records())
        return Plan(checked, published, seconds, self._unused, has_others)

    def send(self, rate: float | None = None, *, tell: Callable[[int], None] = lambda _: None) -> int:
        """Publish what no earlier run has published; how many records that were.

        `tell` hears how many of all the broker has.
        """
        records = in_order(self._files.records(self._pipeline))
        work = publish_history(
            self._kafka, self._pipeline, self._source, records, progress=self._progress, rate=rate, tell=tell
        )
        return run(work)

    def _identity(self) -> str:
        tables = [self._files.observations, *([self._files.labels] if self._files.labels else [])]
        of_files = [table.identity for table in tables]
        return "\n".join([self._source, str(self._files.label_time), *of_files])
