"""Drift that lasts: raised again after a rest, judged on new days alone; never more often."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

import numpy as np
import pytest
from everloop_monitor.application.judge import judge_champions
from everloop_monitor.domain.rows import DayLoss, ModelRow
from everloop_monitor.domain.sketch import sketch
from everloop_schemas.pipeline import load, to_definition

TRAINED = date(2013, 3, 1)
REST = 14
FILE = f"""
pipeline: flights
partition_by: [origin]
observation: {{event_time: at, fields: {{origin: {{type: category}}, wind: {{type: number}}}}}}
label: {{type: binary, fields: {{delay: {{type: number}}}}, value: {{late: delay > 15}}, expected_after: 1h}}
features: {{wind: wind}}
monitor: {{reference_days: {REST}}}
"""
DEFINITION = to_definition(load(FILE))


class Days:
    """The monitor's state in memory, for one champion; `moved` says on which days the world is another."""

    def __init__(self, moved):
        self.moved, self.verdicts, self.events, self.today = moved, {}, [], TRAINED
        self._random = np.random.default_rng(7)
        self._sketches, self._losses = {}, {}

    def _day(self, day):
        if day not in self._sketches:
            shift = 4.0 if day > TRAINED and self.moved(day) else 0.0
            level = self._random.normal(shift, 0.2)
            self._sketches[day] = [sketch(self._random.normal(level, 1.0, 200).tolist())]
            self._losses[day] = float(np.exp(self._random.normal(-0.7 + shift / 8, 0.05)))
        return self._sketches[day]

    async def champions(self):
        ended = datetime.combine(TRAINED, time(12), tzinfo=UTC)
        return [ModelRow("flights", 3, 1, ended)]

    async def definition(self, pipeline, version=None):
        return DEFINITION

    async def reached(self, pipeline, stream):
        return [datetime.combine(self.today + timedelta(days=1), time(3), tzinfo=UTC)]

    async def verdict(self, model, kind):
        return self.verdicts.get(kind)

    async def keep_verdict(self, model, verdict):
        self.verdicts[verdict.kind] = verdict

    async def days(self, pipeline, version, first, last):
        return {day: self._day(day) for day in _between(first, last)}

    async def merge_days(self, pipeline, version, last):
        """Nothing is in parts here."""

    async def losses(self, model, task, last):
        days = _between(TRAINED, last)
        for day in days:
            self._day(day)
        return [DayLoss(day, 200, self._losses[day]) for day in days]

    def emit_drift(self, event):
        self.events.append(event)

    async def live(self, days):
        """Let days pass, each judged at its end, twice."""
        for _ in range(days):
            self.today += timedelta(days=1)
            await judge_champions(self)
            await judge_champions(self)

    def alarms(self, kind):
        return [event.window_end.date() - timedelta(days=1) for event in self.events if event.kind == kind]


def _between(first, last):
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


@pytest.mark.parametrize("kind", ["feature", "loss"])
async def test_drift_that_lasts_is_raised_again_after_a_rest(kind):
    """One rejected run must not end retraining by drift until there is another champion."""
    days = Days(lambda day: day > TRAINED + timedelta(days=12))
    await days.live(70)
    alarms = days.alarms(kind)
    assert len(alarms) >= 3
    gaps = [(later - earlier).days for earlier, later in pairwise(alarms)]
    assert min(gaps) >= REST
    assert max(gaps) <= REST + 7
    assert len({event.id for event in days.events}) == len(days.events)
    begins = [event.window_start.date() for event in days.events if event.kind == kind]
    assert begins[1:] == [alarm + timedelta(days=1) for alarm in alarms[:-1]]


@pytest.mark.parametrize("kind", ["feature", "loss"])
async def test_drift_that_has_passed_is_not_raised_again(kind):
    """The days before the alarm are in it already: what they said must not be said twice."""
    days = Days(lambda day: day > TRAINED + timedelta(days=12))
    while not (first := days.alarms(kind)):
        await days.live(1)
    days.moved = lambda _: False
    await days.live(40)
    assert days.alarms(kind) == first
    assert not days.verdicts[kind].detected
    assert days.verdicts[kind].alarmed == first[0]


async def test_the_first_alarm_keeps_its_id_and_later_ones_are_named_by_their_day():
    """The same days must give the same events, also after a restore, or a run would be started twice."""
    one, other = (Days(lambda day: day > TRAINED + timedelta(days=12)) for _ in range(2))
    await one.live(36)
    await other.live(36)
    assert len(one.events) == 4
    assert [event.id for event in one.events] == [event.id for event in other.events]
