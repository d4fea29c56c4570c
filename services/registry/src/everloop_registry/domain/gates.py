"""The checks a trained version must pass before it may be served: pure, total, kept with their evidence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from everloop_schemas.events import GateResult, MetricEvidence, SliceEvidence, UnseenRows

__all__ = [
    "MINIMUM_SLICE_ROWS",
    "AfterRollback",
    "BetterThan",
    "Evidence",
    "Gate",
    "Limit",
    "SliceRatio",
    "Verdict",
    "evaluate",
]

MINIMUM_SLICE_ROWS = 30
"""A slice with fewer rows says more about chance than about the model: it is counted, not judged."""

_HIGHER_IS_BETTER = frozenset({"auc", "accuracy", "average_precision", "r2"})
_TINY = 1e-12
_TRAIN_AGAIN = "the next run is compared with it, or approve it with --override"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about a candidate on rows that no compared model has trained on.

    `compared_with` is the champion the trainer measured against, `champion_version` the one in force now,
    `unseen` how many rows there were to compare on.
    """

    metrics: Sequence[MetricEvidence]
    compared_with: int | None
    champion_version: int | None
    unseen: UnseenRows | None = None

    def metric(self, name: str) -> MetricEvidence | None:
        """The evidence of one metric, if the trainer gave a finite one."""
        found = next((metric for metric in self.metrics if metric.name == name), None)
        return found if found is not None and math.isfinite(found.candidate) else None


class Gate(Protocol):
    """One check. It never raises: what it cannot judge, it fails."""

    @property
    def name(self) -> str:
        """What people see, such as `log_loss better than champion`."""

    def check(self, evidence: Evidence) -> GateResult:
        """Judge the evidence; what is missing fails."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every gate's result; the version passes when all of them do."""

    gates: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the version."""
        return all(gate.passed for gate in self.gates)

    @property
    def summary(self) -> str:
        """One line for events, histories and people."""
        failed = [f"{gate.name}: {gate.reason}" for gate in self.gates if not gate.passed]
        if failed:
            return "; ".join(failed)
        return f"all {len(self.gates)} gates passed" if self.gates else "the pipeline declares no gates"


def evaluate(gates: Sequence[Gate], evidence: Evidence) -> Verdict:
    """Check every gate, also after one has failed: the verdict lists them all.

    Evidence that a gate needs and does not find fails that gate: silence is no approval.
    """
    return Verdict(tuple(gate.check(evidence) for gate in gates))


@dataclass(frozen=True, slots=True)
class BetterThan:
    """The candidate beats the champion or the prior, by the point estimate and, if asked, with confidence.

    `confidence` is the least share (0…1) of resamples in which the candidate must win.
    """

    metric: str
    reference: Literal["champion", "prior"]
    confidence: float | None = None

    @property
    def name(self) -> str:
        """The metric and what it is compared with."""
        return f"{self.metric} better than {self.reference}"

    def check(self, evidence: Evidence) -> GateResult:
        """Pass when the candidate is strictly better; without a champion there is nothing to beat."""
        if self.reference == "champion" and (early := self._without_comparison(evidence)):
            return early
        metric = evidence.metric(self.metric)
        if metric is None:
            return _failed(self.name, f"no finite {self.metric} in the evidence")
        reference = metric.champion if self.reference == "champion" else metric.prior
        if reference is None or not math.isfinite(reference):
            return _failed(self.name, f"no {self.metric} of the {self.reference} in the evidence")
        return self._compare(metric, reference)

    def _without_comparison(self, evidence: Evidence) -> GateResult | None:
        if evidence.champion_version is None:
            return GateResult(name=self.name, passed=True, reason="no champion yet: nothing to beat")
        if evidence.compared_with == evidence.champion_version:
            return None
        return _failed(self.name, _why_not_compared(evidence))

    def _compare(self, metric: MetricEvidence, reference: float) -> GateResult:
        words = f"{self.metric} {metric.candidate:.6g} against the {self.reference}'s {reference:.6g}"
        if self.confidence is None or not _better(self.metric, metric.candidate, reference):
            passed = _better(self.metric, metric.candidate, reference)
            reason = words if passed else f"{words} is not better"
            return GateResult(
                name=self.name, passed=passed, reason=reason, observed=metric.candidate, limit=reference
            )
        share = (
            metric.better_than_champion_confidence
            if self.reference == "champion"
            else metric.better_than_prior_confidence
        )
        return self._confident(words, share, self.confidence)

    def _confident(self, words: str, share: float | None, least: float) -> GateResult:
        if share is None or not math.isfinite(share):
            return _failed(self.name, f"{words}, but no confidence in the evidence")
        passed = share >= least
        reason = f"{words}, with confidence {share:.4g}" + ("" if passed else f", below {least:.4g}")
        return GateResult(name=self.name, passed=passed, reason=reason, observed=share, limit=least)


@dataclass(frozen=True, slots=True)
class AfterRollback:
    """Whatever the file declares: a person's rollback stands until a model was compared with its champion."""

    name: str = "rollback"

    def check(self, evidence: Evidence) -> GateResult:
        """Pass when the champion in force is the one that the candidate was compared with."""
        if evidence.compared_with != evidence.champion_version:
            return _failed(self.name, f"a rollback stands: {_why_not_compared(evidence)}")
        reason = f"compared with version {evidence.champion_version}, which a rollback brought back"
        return GateResult(name=self.name, passed=True, reason=reason)


@dataclass(frozen=True, slots=True)
class Limit:
    """The candidate's metric stays within a fixed bound."""

    metric: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def name(self) -> str:
        """The metric and the side of the bound."""
        return f"{self.metric} {'at most' if self.at_most is not None else 'at least'}"

    def check(self, evidence: Evidence) -> GateResult:
        """Pass when the candidate lies within every given bound, bounds included."""
        metric = evidence.metric(self.metric)
        if metric is None:
            return _failed(self.name, f"no finite {self.metric} in the evidence")
        above = self.at_most is not None and not metric.candidate <= self.at_most
        below = self.at_least is not None and not metric.candidate >= self.at_least
        limit = self.at_least if below or self.at_most is None else self.at_most
        side = "outside" if above or below else "within"
        return GateResult(
            name=self.name,
            passed=not (above or below),
            reason=f"{self.metric} {metric.candidate:.6g} is {side} the limit {limit}",
            observed=metric.candidate,
            limit=limit,
        )


@dataclass(frozen=True, slots=True)
class SliceRatio:
    """No value of a feature may fare much worse than it does with the champion (without one: with the prior).

    The ratio is candidate to reference on the same rows, turned round where higher is better; so a
    slice that is hard by nature does not fail a model that serves it as well as before.
    """

    metric: str
    feature: str
    at_most_ratio: float

    @property
    def name(self) -> str:
        """The metric and the feature whose values are compared."""
        return f"{self.metric} by {self.feature}"

    def check(self, evidence: Evidence) -> GateResult:
        """Pass when the worst slice that is large enough stays within the ratio."""
        metric = evidence.metric(self.metric)
        slices = [part for part in metric.slices if part.feature == self.feature] if metric else []
        if not slices:
            return _failed(self.name, f"no slice metrics of {self.feature} in the evidence")
        judged = [part for part in slices if part.rows >= MINIMUM_SLICE_ROWS]
        if not judged:
            return _failed(self.name, f"no slice of {self.feature} has {MINIMUM_SLICE_ROWS} rows or more")
        return self._judge(judged, left_out=len(slices) - len(judged))

    def _judge(self, slices: Sequence[SliceEvidence], left_out: int) -> GateResult:
        worst = max(slices, key=self._ratio)
        ratio = self._ratio(worst)
        reference = "prior" if worst.champion is None else "champion"
        reason = f"worst is {worst.value}: {ratio:.4g} times the {reference}'s {self.metric}"
        if left_out:
            reason += f" ({left_out} slices below {MINIMUM_SLICE_ROWS} rows not judged)"
        passed = ratio <= self.at_most_ratio
        observed = ratio if math.isfinite(ratio) else None
        return GateResult(
            name=self.name, passed=passed, reason=reason, observed=observed, limit=self.at_most_ratio
        )

    def _ratio(self, part: SliceEvidence) -> float:
        reference = part.prior if part.champion is None else part.champion
        if not (math.isfinite(part.candidate) and math.isfinite(reference)):
            return math.inf
        if self.metric in _HIGHER_IS_BETTER:
            return max(reference, _TINY) / max(part.candidate, _TINY)
        return max(part.candidate, _TINY) / max(reference, _TINY)


def _better(metric: str, candidate: float, reference: float) -> bool:
    return candidate > reference if metric in _HIGHER_IS_BETTER else candidate < reference


def _why_not_compared(evidence: Evidence) -> str:
    unseen, champion = evidence.unseen, f"the champion is version {evidence.champion_version}"
    if evidence.compared_with is not None:
        return f"compared with version {evidence.compared_with}, but {champion} by now; {_TRAIN_AGAIN}"
    if unseen is not None and unseen.champion_version != evidence.champion_version:
        before = f"trained when version {unseen.champion_version} was in force"
        return f"{before}, but {champion} by now; {_TRAIN_AGAIN}"
    if unseen is None or unseen.rows >= unseen.needed:
        return f"compared with no champion, but {champion}; {_TRAIN_AGAIN}"
    return (
        f"only {unseen.rows} of the {unseen.needed} labelled rows needed for a comparison are newer than what"
        " the champion was trained on; send more labels, or approve it with --override"
    )


def _failed(name: str, reason: str) -> GateResult:
    return GateResult(name=name, passed=False, reason=reason)
