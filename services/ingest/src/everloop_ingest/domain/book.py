"""A pipeline's windows and its standing, as tallies and decisions come in: pure, exact in any batching."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from everloop_schemas.events import (
    Acceptance,
    DataGate,
    QualityJudged,
    QualityStanding,
    Tallied,
    WindowMeasured,
)
from everloop_schemas.ids import derived_id

from everloop_ingest.domain.clocks import moved, slowest
from everloop_ingest.domain.data_gates import Gate
from everloop_ingest.domain.rules import DAY, REFERENCE_WINDOWS, Rules, moment, seconds

__all__ = ["Book", "blocked_reason"]

_KEPT_DAYS: Final = 37
"""Windows are remembered for the same hour of the four weeks before, and those weeks' own past."""
_TOGETHER: Final = 0.9
"""How far into a window every partition must be, as a share of the one farthest into it."""
_MOST_EXAMPLES: Final = 5
_MOST_SHOWN: Final = 3


def blocked_reason(standing: QualityStanding | None) -> str | None:
    """Which gates hold training back, in words; None when none does."""
    if standing is None or not standing.held:
        return None
    shown = "; ".join(map(_said, standing.held[:_MOST_SHOWN]))
    more = len(standing.held) - _MOST_SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown


def _said(gate: DataGate) -> str:
    limits = [
        f"{word} {limit:.3g}"
        for word, limit in (("at least", gate.at_least), ("at most", gate.at_most))
        if limit is not None
    ]
    seen = f" ({', '.join(gate.examples[:_MOST_SHOWN])})" if gate.examples else ""
    return f"{gate.gate} is {gate.figure:.3g}{seen}, expected {' and '.join(limits)} in {gate.rows} rows"


@dataclass
class Book:
    """One pipeline's windows by start (seconds since 1970), and what has changed since it was opened."""

    pipeline: str
    windows: dict[int, WindowMeasured] = field(default_factory=dict)
    standing: QualityStanding | None = None
    touched: set[int] = field(default_factory=set)
    judged: list[QualityJudged] = field(default_factory=list)

    def copy(self) -> "Book":
        """A book to write in; windows and standing are never changed, only replaced."""
        return Book(self.pipeline, dict(self.windows), self.standing)

    def add(self, tallied: Tallied, rules: Rules, noted_at: datetime) -> None:
        """Add a tally, then judge every window that is over in all partitions; `noted_at` is wall time."""
        start = seconds(tallied.window_start)
        start -= start % rules.step  # tallied under an older file with other windows
        standing = self._standing(tallied, start, noted_at)
        oldest = seconds(standing.known_at) - _KEPT_DAYS * DAY
        if start >= oldest and _counts_anything(tallied):
            self._put(start, _plus(self.windows.get(start) or _empty(start, rules), tallied, rules))
            if start < seconds(standing.judged_until):
                self._judge(start, rules)
        if self._close(rules):
            self._forget(rules)
        if tallied.arrived is not None and start in self.windows:
            self._look_early(start, rules)

    def _standing(self, tallied: Tallied, start: int, noted_at: datetime) -> QualityStanding:
        """The standing at the pipeline time that a tally brings."""
        before = self.standing
        if before is None:
            before = QualityStanding(known_at=tallied.known_at, judged_until=moment(start))
        self.standing = _with(
            before,
            known_at=max(before.known_at, tallied.known_at),
            clocks=moved(before.clocks, tallied.partition, tallied.known_at, noted_at),
        )
        return self.standing

    def _close(self, rules: Rules) -> bool:
        """Judge the windows that have ended, also those in which nothing came; whether there were any."""
        assert self.standing is not None
        over = seconds(slowest(self.standing.clocks)) - rules.grace
        over -= over % rules.step
        begin = seconds(self.standing.judged_until)
        begin -= begin % rules.step
        for start in range(max(begin, over - REFERENCE_WINDOWS * rules.step), over, rules.step):
            self._judge(start, rules)
            self.standing = _with(self.standing, judged_until=moment(start + rules.step))
        return over > begin

    def _judge(self, start: int, rules: Rules) -> None:
        assert self.standing is not None
        window = self.windows.get(start) or _empty(start, rules)
        held = {gate.gate for gate in self.standing.held}
        gates = list(rules.final(self.windows, start, window, held))
        broken = [gate.evidence() for gate in gates if gate.broken]
        was, state = window.state, "broken" if broken else "passed"
        if start in self.windows or broken:
            self._put(start, window.model_copy(update={"state": state, "broken": broken}))
        newest = start + rules.step >= seconds(self.standing.judged_until)  # an older one lifts nothing
        passed = gates if newest else ()
        self._draw_conclusions(start, passed, broken, rules, news=bool(broken) and was != "broken")

    def _look_early(self, start: int, rules: Rules) -> None:
        """New data is to be announced: what its window shows so far may already be a fault.

        Not where some partitions have hardly come to the window: its rows would be those of the others' keys.
        """
        assert self.standing is not None
        fastest, slow = seconds(self.standing.known_at), seconds(slowest(self.standing.clocks))
        if slow - start < _TOGETHER * (fastest - start):
            return
        gates = list(rules.early(self.windows, start))
        broken = [gate.evidence() for gate in gates if gate.broken]
        if broken:
            self._draw_conclusions(start, (), broken, rules, news=False)

    def _draw_conclusions(
        self, start: int, gates: Iterable[Gate], broken: list[DataGate], rules: Rules, *, news: bool
    ) -> None:
        """Hold what is broken, let go what passes where it would have been seen, and tell what changed."""
        before = self.standing
        assert before is not None
        waived = _still_waived(before, rules)
        blocking = {
            gate.gate: gate for gate in broken if gate.on_broken == "block" and _measure(gate) not in waived
        }
        kept = [held for held in before.held if held.gate not in blocking and not _lifted(held, gates)]
        held = [*kept, *blocking.values()]
        changed = {gate.gate for gate in held} != {gate.gate for gate in before.held}
        if held != before.held or waived != before.waived:
            self.standing = _with(before, held=held, waived=waived)
        if news or changed:
            verdict: Literal["broken", "passed"] = "broken" if broken else "passed"
            due = start + rules.step + rules.grace  # not when the next record happened to come
            self._tell(verdict, start, start + rules.step, broken, known_at=moment(due))

    def _tell(
        self,
        verdict: Literal["broken", "passed", "accepted"],
        start: int,
        end: int,
        gates: list[DataGate],
        *,
        known_at: datetime,
        decision: Acceptance | None = None,
    ) -> None:
        assert self.standing is not None
        revision = self.standing.revision + 1
        self.standing = standing = _with(self.standing, revision=revision)
        self.judged.append(
            QualityJudged(
                id=derived_id(f"{self.pipeline}-{revision}", "quality-judged"),
                pipeline=self.pipeline,
                revision=revision,
                verdict=verdict,
                window_start=moment(start),
                window_end=moment(end),
                gates=gates,
                blocked=bool(standing.held),
                blocked_reason=blocked_reason(standing),
                decided_by=decision.by if decision else None,
                decision_reason=decision.reason if decision else None,
                known_at=known_at,
            )
        )

    def accept(self, acceptance: Acceptance, rules: Rules) -> None:
        """A person opens the gates that are broken now, until the next profile or another pipeline file."""
        before = self.standing
        if before is None or not before.held:
            return
        waived = sorted({*_still_waived(before, rules), *map(_measure, before.held)})
        self.standing = _with(
            before, held=[], waived=waived, waived_under=rules.profile_id, accepted_by=acceptance.by
        )
        until = seconds(before.judged_until)
        self._tell(
            "accepted",
            until - rules.step,
            until,
            list(before.held),
            known_at=before.known_at,
            decision=acceptance,
        )

    def _put(self, start: int, window: WindowMeasured) -> None:
        if self.windows.get(start) != window:
            self.windows[start] = window
            self.touched.add(start)

    def _forget(self, rules: Rules) -> None:
        """Old windows lose their counts, then go: memory is bounded by windows, not by rows."""
        assert self.standing is not None
        oldest = seconds(self.standing.known_at) - _KEPT_DAYS * DAY
        bare = seconds(self.standing.judged_until) - (REFERENCE_WINDOWS + 1) * rules.step - DAY
        for start in [each for each in self.windows if each < oldest]:
            del self.windows[start]
            self.touched.add(start)
        for start in _full_before(self.windows, bare):
            self._put(start, self.windows[start].model_copy(update=_BARE))


_BARE: Final[Mapping[str, object]] = {"learned": {}, "declared": {}, "unseen": {}, "profile": None}


def _full_before(windows: Mapping[int, WindowMeasured], bare: int) -> list[int]:
    """Windows before `bare` that still have counts; the order is that of arrival."""
    return [each for each, window in windows.items() if each < bare and (window.learned or window.declared)]


def _with(standing: QualityStanding, **changes: object) -> QualityStanding:
    return standing.model_copy(update=changes)


def _still_waived(standing: QualityStanding, rules: Rules) -> list[str]:
    """A new profile knows the data that a person took: learned gates close again."""
    declared = {f"{name}(" for name in (each.expect for each in rules.quality.expect)}
    same = standing.waived_under == rules.profile_id
    return [name for name in standing.waived if same or any(name.startswith(word) for word in declared)]


def _measure(gate: DataGate) -> str:
    """What a gate is about, by the hour and by the day."""
    return gate.gate.removesuffix(" a day")


def _lifted(held: DataGate, gates: Iterable[Gate]) -> bool:
    """Whether a window passes a gate although it has rows enough to show the fault that is held."""
    return any(
        gate.about.gate == held.gate and not gate.broken and gate.would_see(held.figure) for gate in gates
    )


def _counts_anything(tallied: Tallied) -> bool:
    return bool(tallied.observations or tallied.labels or tallied.duplicates or tallied.quarantined)


def _empty(start: int, rules: Rules) -> WindowMeasured:
    begin = moment(start)
    end = begin + timedelta(seconds=rules.step)
    return WindowMeasured(
        start=begin, end=end, state="open", observations=0, labels=0, duplicates=0, quarantined=0
    )


def _plus(window: WindowMeasured, tallied: Tallied, rules: Rules) -> WindowMeasured:
    """The sum; what was counted under an older profile says nothing about the present one's invariants."""
    same = window.profile == tallied.profile
    stale = not same and tallied.profile != rules.profile_id  # a partition that has not heard of it yet
    update: dict[str, object] = {
        name: getattr(window, name) + getattr(tallied, name)
        for name in ("observations", "labels", "duplicates", "quarantined")
    }
    update["declared"] = _added(window.declared, tallied.declared)
    if not stale:
        update["profile"] = tallied.profile
        update["learned"] = _added(window.learned if same else {}, tallied.learned)
        update["unseen"] = _named(window.unseen if same else {}, tallied.unseen)
        for name in ("observations", "labels"):
            before = getattr(window, f"profiled_{name}") if same else 0
            update[f"profiled_{name}"] = before + (getattr(tallied, name) if tallied.profile else 0)
    return window.model_copy(update=update)


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    names = [*one, *(name for name in other if name not in one)]
    return {name: one.get(name, 0) + other.get(name, 0) for name in names}


def _named(one: Mapping[str, list[str]], other: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """A few values by field, the first ones that came."""
    names = [*one, *(name for name in other if name not in one)]
    return {name: list(_first([*one.get(name, []), *other.get(name, [])])) for name in names}


def _first(values: Iterable[str]) -> Iterator[str]:
    yield from list(dict.fromkeys(values))[:_MOST_EXAMPLES]
