"""What a transaction of a log partition tells the judge of the data gates: sums, window by window.

Nothing is kept between transactions: sums of sums are exact in any batching, and a transaction that is not
committed has told nothing.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from everloop_kernel.stream import Output
from everloop_schemas.cloudevents import encode
from everloop_schemas.events import DataProfiled, QualityNoted, Tallied
from everloop_schemas.ids import derived_id
from everloop_schemas.pipeline import Quality

from everloop_ingest.application import names
from everloop_ingest.application.intake import NewState
from everloop_ingest.domain.contract import Checked, Contract
from everloop_ingest.domain.gauges import Counted, Gauges

__all__ = ["Tallier", "noted"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Window:
    """What a batch holds of one window."""

    observations: list[Checked] = field(default_factory=list)
    labels: list[Checked] = field(default_factory=list)
    duplicates: int = 0
    quarantined: int = 0


class Tallier:
    """Counts the batches of one log partition."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._key: tuple[int, str | None] = (0, None)
        self._gauges: Gauges | None = None

    def outputs(
        self, contract: Contract, profile: DataProfiled | None, state: NewState, position: int
    ) -> list[Output]:
        """The notes about the batch before inbound offset `position`: the oldest window first.

        New data is announced with the last one.
        """
        gauges = self._gauges_for(contract, profile)
        tallied = list(self.tallied(contract, gauges, state))
        if not tallied:
            return []
        if state.announces:
            arrived = [state.tally.observations, state.tally.labels]
            tallied[-1] = tallied[-1].model_copy(update={"arrived": arrived})
        found = (QualityNoted(pipeline=contract.pipeline, tallied=each) for each in tallied)
        return [noted(each, f"{self._partition}-{position}-{n}") for n, each in enumerate(found)]

    def _gauges_for(self, contract: Contract, profile: DataProfiled | None) -> Gauges:
        key = (id(contract), None if profile is None else profile.run_id)
        if self._gauges is None or key != self._key:
            self._key, self._gauges = key, Gauges(contract.definition, profile)
        return self._gauges

    def tallied(self, contract: Contract, gauges: Gauges, state: NewState) -> Iterator[Tallied]:
        """The sums of one batch, window by window."""
        step = (contract.definition.quality or Quality()).window
        windows = _by_window(state, step)
        known_at = state.tally.known_at
        for number in sorted(windows):
            window, start = windows[number], _EPOCH + number * step
            seen = gauges.count("observation", window.observations)
            told = gauges.count("label", window.labels)
            yield Tallied(
                partition=self._partition,
                window_start=start,
                known_at=min(known_at, start + step) if number < max(windows) else known_at,
                observations=len(window.observations),
                labels=len(window.labels),
                duplicates=window.duplicates,
                quarantined=window.quarantined,
                profile=gauges.profile,
                **_together(seen, told),
            )


def _together(seen: Counted, told: Counted) -> dict[str, dict[str, int]]:
    """Counts of observations and labels: their fields have different names."""
    return {
        name: {**getattr(told, name), **getattr(seen, name)} for name in ("learned", "declared", "unseen")
    }


def _by_window(state: NewState, step: timedelta) -> dict[int, _Window]:
    """The batch by the number of the window in which each record became known."""
    windows: defaultdict[int, _Window] = defaultdict(_Window)
    for number, records in _cut(state.checked, step):
        labels = [each for each in records if each.kind == "label"]
        windows[number].labels += labels
        windows[number].observations += (
            [each for each in records if each.kind == "observation"] if labels else records
        )
    for moment in state.duplicates:
        windows[(moment - _EPOCH) // step].duplicates += 1
    for moment in state.quarantined:
        if moment > _EPOCH:  # before the first accepted record there is no pipeline time
            windows[(moment - _EPOCH) // step].quarantined += 1
    return windows


def _cut(records: Sequence[Checked], step: timedelta) -> Iterator[tuple[int, Sequence[Checked]]]:
    """Runs of records of one window each: records come nearly in the order of their times."""
    begin, start, end = 0, _EPOCH, _EPOCH
    for position, each in enumerate(records):
        if not start <= each.known_at < end:
            if position > begin:
                yield (start - _EPOCH) // step, records[begin:position]
            begin = position
            start = _EPOCH + (each.known_at - _EPOCH) // step * step
            end = start + step
    if records:
        yield (start - _EPOCH) // step, records[begin:]


def noted(event: QualityNoted, identifier: str) -> Output:
    """The record that the judge reads."""
    moment = event.tallied.known_at if event.tallied else None
    value, headers = encode(
        event,
        id=derived_id(f"{event.pipeline}-{identifier}", "quality-noted"),
        source=names.source_of(event.pipeline),
        time=moment,
    )
    return Output(names.NOTED_TOPIC, 0, event.pipeline.encode(), value, headers)
