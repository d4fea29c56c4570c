"""What the demo sent and what it was told: the side of the account that Everloop cannot forge."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

CLIP = 1e-7
"""Probabilities are kept this far from 0 and 1, so that one sure and wrong answer has a finite loss."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One prediction as the client received it."""

    probability: float
    model_version: int
    frozen: float | None
    prior: float


@dataclass(slots=True)
class Losses:
    """Prequential log loss, in nats per flight: each answer was given before its label was known."""

    rows: int = 0
    champion: float = 0.0
    frozen_first: float = 0.0
    prior: float = 0.0

    def add(self, answer: Answer, late: bool) -> None:  # noqa: FBT001 - the outcome itself
        """Count one flight whose outcome became known."""
        self.rows += 1
        self.champion += log_loss(answer.probability, late)
        self.frozen_first += log_loss(answer.probability if answer.frozen is None else answer.frozen, late)
        self.prior += log_loss(answer.prior, late)

    def means(self) -> dict[str, float]:
        """Mean loss of each, rounded to five places; empty before the first label."""
        names = ("champion", "frozen_first", "prior")
        return {name: round(getattr(self, name) / self.rows, 5) for name in names} if self.rows else {}


@dataclass
class Ledger:
    """Every record sent, every answer received, every request that failed."""

    observations: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    repeated: int = 0
    broken: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: int = 0
    failures: list[str] = field(default_factory=list)
    losses: Losses = field(default_factory=Losses)
    late: int = 0

    @property
    def prior(self) -> float:
        """The share of late flights among the labels known so far, one half before the first."""
        return (self.late + 1) / (len(self.labels) + 2)

    def observed(self, identities: Iterable[str]) -> None:
        """Count observations that ingest acknowledged."""
        self.observations.update(identities)

    def learned(self, labels: Iterable[tuple[str, bool]]) -> None:
        """Count labels that ingest acknowledged; each scores the answer that was given before it."""
        for identity, late in labels:
            self.labels.add(identity)
            self.late += late
            if identity in self.answers:
                self.losses.add(self.answers[identity], late)


def log_loss(probability: float, outcome: bool) -> float:  # noqa: FBT001 - the outcome itself
    """Negative log likelihood of one outcome."""
    kept = min(max(probability, CLIP), 1 - CLIP)
    return -math.log(kept if outcome else 1 - kept)
