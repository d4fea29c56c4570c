"""Rows that the monitor keeps of what it reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from everloop_monitor.domain.sketch import Sketch

__all__ = ["DayLoss", "DaySketch", "LabelRow", "ModelRow", "PredictionRow", "VerdictRow", "WithdrawnRow"]


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One answer of serving."""

    id: str
    model_version: int
    arm: str
    pipeline_version: int
    day: date
    event_time: datetime
    predicted_at: datetime
    output: float
    trace_id: str | None


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One outcome, as the number that the model predicts; `day` is that of the outcome.

    None where the label has no value: it takes back what was known before.
    """

    id: str
    day: date
    value: float | None
    known_at: datetime


@dataclass(frozen=True, slots=True)
class WithdrawnRow:
    """A retracted observation; `day` is that of the retraction."""

    id: str
    day: date
    known_at: datetime


@dataclass(frozen=True, slots=True)
class DaySketch:
    """A part of a day's vectors: one sketch a feature, in the order of the vector."""

    pipeline_version: int
    day: date
    rows: int
    features: Sequence[Sketch]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """The champion, and where its training data ended."""

    pipeline: str
    model_version: int
    pipeline_version: int
    last_event_time: datetime


@dataclass(frozen=True, slots=True)
class DayLoss:
    """The mean loss of the answers of one day whose outcome is known."""

    day: date
    rows: int
    loss: float


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """What the newest judgement of one kind says; `alarmed` is the day of the newest alarm."""

    kind: str
    day: date
    value: float
    threshold: float
    detected: bool
    evidence: Sequence[Mapping[str, object]]
    alarmed: date | None = None

    def due(self, day: date, rest: timedelta) -> bool:
        """Whether `day` calls for another judgement: after an alarm not before so much time has passed.

        That one is made of the days since the alarm alone, so each alarm has evidence of its own, and the
        declared rate of false alarms holds for every wait from one to the next.
        """
        if self.detected and self.alarmed is not None:
            return day >= self.alarmed + rest
        return day > self.day
