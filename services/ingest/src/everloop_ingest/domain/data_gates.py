"""One data gate on one window: a figure, the limits that chance allows at this number of rows, a verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from everloop_schemas.events import DataGate
from everloop_schemas.shares import extreme_share, may_surprise, surprise

__all__ = ["About", "CountGate", "Gate", "RatioGate", "ShareGate", "poisson_surprise"]


@dataclass(frozen=True, slots=True)
class About:
    """What a gate is called, where it comes from, and what follows when it is broken."""

    gate: str
    source: Literal["declared", "learned"]
    on_broken: Literal["block", "warn"]
    field: str | None = None
    scale: Literal["window", "day"] = "window"
    examples: Sequence[str] = ()

    def evidence(
        self, figure: float, rows: int, *, at_least: float | None, at_most: float | None
    ) -> DataGate:
        """The gate with its figure, as an event tells it."""
        return DataGate(
            gate=self.gate,
            source=self.source,
            field=self.field,
            scale=self.scale,
            figure=figure,
            at_least=at_least,
            at_most=at_most,
            rows=rows,
            on_broken=self.on_broken,
            examples=list(self.examples),
        )


class Gate(Protocol):
    """A gate that a window was held against."""

    @property
    def about(self) -> About:
        """Its name and source."""
        ...

    @property
    def broken(self) -> bool:
        """Whether the figure is beyond what chance allows."""
        ...

    def would_see(self, figure: float) -> bool:
        """Whether this window has enough rows to tell such a figure from a usual one."""
        ...

    def evidence(self) -> DataGate:
        """Figure and limits."""
        ...


@dataclass(frozen=True, slots=True)
class ShareGate:
    """`count` of `rows` rows, where a share from `low` to `high` is usual; None leaves a side open."""

    about: About
    count: int
    rows: int
    low: float | None
    high: float | None
    correlation: float
    limit: float

    @property
    def broken(self) -> bool:
        """Whether the share is beyond."""
        return self.rows > 0 and self.would_see(self.count / self.rows)

    def would_see(self, figure: float) -> bool:
        """Whether such a share of so many rows would be more surprising than the limit."""
        if self.high is not None and figure > self.high:
            usual = self.high
        elif self.low is not None and figure < self.low:
            usual = self.low
        else:
            return False
        about = (figure, self.rows, usual, self.correlation)
        return may_surprise(*about, self.limit) and surprise(*about) > self.limit

    def evidence(self) -> DataGate:
        """Share and limits."""
        return self.about.evidence(
            self.count / max(self.rows, 1),
            self.rows,
            at_least=self._extreme(self.low, upwards=False),
            at_most=self._extreme(self.high, upwards=True),
        )

    def _extreme(self, share: float | None, *, upwards: bool) -> float | None:
        if share is None:
            return None
        return extreme_share(self.rows, share, self.correlation, self.limit, upwards=upwards)


@dataclass(frozen=True, slots=True)
class RatioGate:
    """`rows` rows where `usual` came in past weeks: a ratio from `low` to `high`, and Poisson noise."""

    about: About
    rows: int
    usual: float
    low: float | None
    high: float | None
    limit: float

    @property
    def broken(self) -> bool:
        """Whether so many rows are too few or too many."""
        return self.would_see(self.rows / max(self.usual, 1.0))

    def would_see(self, figure: float) -> bool:
        """Whether such a ratio would be more surprising than the limit."""
        rows, usual = figure * max(self.usual, 1.0), self.usual
        if self.low is not None and rows < self.low * usual:
            return poisson_surprise(rows, self.low * usual) > self.limit
        if self.high is not None and rows > self.high * max(usual, 1.0):
            return poisson_surprise(rows, self.high * max(usual, 1.0)) > self.limit
        return False

    def evidence(self) -> DataGate:
        """The ratio, and the ratios that past weeks know."""
        return self.about.evidence(
            self.rows / max(self.usual, 1.0), self.rows, at_least=self.low, at_most=self.high
        )


@dataclass(frozen=True, slots=True)
class CountGate:
    """A declared number of rows, to the row."""

    about: About
    rows: int
    low: float | None
    high: float | None

    @property
    def broken(self) -> bool:
        """Whether there are fewer or more."""
        return self.would_see(self.rows)

    def would_see(self, figure: float) -> bool:
        """No tolerance: a person has said how many."""
        return (self.low is not None and figure < self.low) or (self.high is not None and figure > self.high)

    def evidence(self) -> DataGate:
        """Rows and limits."""
        return self.about.evidence(self.rows, self.rows, at_least=self.low, at_most=self.high)


def poisson_surprise(observed: float, mean: float) -> float:
    """-log of Chernoff's bound of the chance to see `observed` or beyond where `mean` is expected."""
    if mean <= 0:
        return math.inf if observed > 0 else 0.0
    return mean - observed + (observed * math.log(observed / mean) if observed > 0 else 0.0)
