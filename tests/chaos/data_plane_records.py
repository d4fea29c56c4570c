"""10,000 inbound records as a careless world sends them: late, doubled, revised, withdrawn, hostile.

Every record goes to the inbound partition of its key, and `known_at` is given, so a log partition's values
follow from the order of one inbound partition alone. Only a copy of what is in the log already goes astray
(to another partition, as a client does that hashes otherwise): it is forwarded, comes at any time, and must
change nothing.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from everloop_schemas.partition import key_bytes, partition_of

__all__ = ["NAME", "PARTITIONS", "PIPELINE", "RECORDS", "SOURCE", "Sent", "inbound"]

NAME = "data-plane"
SOURCE = "chaos"
PARTITIONS = 4
RECORDS = 10_000
OBSERVATIONS = 5_150
CONFLICTS = 25
SITES = [f"site-{number}" for number in range(16)]
START = datetime(2024, 3, 1, tzinfo=UTC)
STEP = timedelta(minutes=3)
"""Eleven days in all: four more than a record is remembered for corrections."""
PIPELINE = f"""
pipeline: {NAME}
partition_by: [site]
partitions: {PARTITIONS}
observation:
  event_time: at
  replay_sources: [{SOURCE}]
  fields:
    site: {{type: category}}
    visitor: {{type: category}}
    kind: {{type: category}}
    level: {{type: number, min: -10, max: 10, nullable: true}}
label:
  type: binary
  fields: {{outcome: {{type: number}}}}
  value: {{bad: outcome > 0.5}}
  expected_after: 3h
features:
  level: level
  level_mean: mean(level, window='1h', by=[site])
  level_std: std(level, window='6h', by=[site])
  level_ewma: ewma(level, window='1d', half_life='2h', by=[site])
  level_high: quantile(level, 0.9, window='6h', by=[site])
  level_last: mean(level, last_n=7, by=[site])
  peaks: count(window='3h', by=[site], where=level > 1)
  visits: count(window='6h', by=[site, visitor])
  kinds: distinct(kind, window='2h', by=[site])
  bad_rate: mean(bad, window='6h', by=[site], over=labels)
  outcome_std: std(outcome, window='1d', by=[site, kind], over=labels)
  outcome_ewma: ewma(outcome, window='1d', half_life='3h', by=[site], over=labels)
  outcome_median: quantile(outcome, 0.5, window='6h', by=[site], over=labels)
  bad_kinds: distinct(kind, window='6h', by=[site], over=labels, where=bad)
  bad_last: mean(bad, last_n=10, by=[site], over=labels)
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """One inbound record; `partition` is where it is sent.

    One that stands `alone` is sent after all before it are acknowledged, and before any that follows: a copy
    that goes astray must not come before its original, nor a withdrawal again after what follows it.
    """

    type: str
    value: bytes | None
    partition: int
    hostile: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class _Drafted:
    """A record before it stands in its place: `at` decides where that is."""

    at: datetime
    site: str
    sent: Sent


def inbound(seed: int) -> list[list[Sent]]:
    """By the partition of its key, everything in the order of sending."""
    chance = random.Random(seed)
    drafts = _in_order(chance, _world(chance))
    ordered = [each.sent for each in drafts]
    spare = [each for each in drafts if _may_come_again(each.sent)]
    copies = sorted(chance.sample(range(len(spare)), RECORDS - len(ordered)))
    again = {id(spare[position]): number % 4 == 0 for number, position in enumerate(copies)}
    found: defaultdict[int, list[Sent]] = defaultdict(list)
    for each in drafts:
        home = _home(each.site)
        found[home].append(each.sent)
        if id(each) in again:
            astray = (home + 1) % PARTITIONS if again[id(each)] else home
            found[home].append(replace(each.sent, partition=astray, alone=astray != home))
    return [found[partition] for partition in range(PARTITIONS)]


def _may_come_again(sent: Sent) -> bool:
    """Not what is withdrawn or hostile: what a copy of it is depends on what came between."""
    return not sent.hostile and sent.value is not None and b'"w' not in sent.value


def _in_order(chance: random.Random, drafts: Iterable[_Drafted]) -> list[_Drafted]:
    """By the time of knowing, 2% out of it by up to three quarters of an hour."""
    moved = timedelta(minutes=45)
    keyed = [
        (each.at + (chance.uniform(-1, 1) * moved if chance.random() < 0.02 else timedelta()), number, each)
        for number, each in enumerate(drafts)
    ]
    return [each for _, _, each in sorted(keyed, key=lambda item: item[:2])]


def _world(chance: random.Random) -> Iterator[_Drafted]:
    for number in range(OBSERVATIONS):
        at = START + number * STEP
        site, withdrawn = chance.choice(SITES), chance.random() < 0.01
        record_id = f"{'w' if withdrawn else 'r'}{number}"
        seen = _observation(chance, record_id, site, number)
        yield _draft("observation", site, at, seen)
        if chance.random() < 0.8:
            yield from _labels(chance, record_id, site, at)
        if withdrawn:
            yield from _withdrawal(chance, seen, site, at)
        if number % (OBSERVATIONS // CONFLICTS) == 7 and not withdrawn:
            yield _draft(
                "observation", site, at + timedelta(minutes=40), {**seen, "level": 9.5}, hostile=True
            )
        if number % 50 == 0:
            yield _hostile(chance, number, site, at)


def _observation(chance: random.Random, record_id: str, site: str, number: int) -> dict[str, Any]:
    """2% happened up to five hours before they are known; a visitor comes on one day only."""
    late = timedelta(minutes=chance.uniform(1, 300) if chance.random() < 0.02 else 0)
    return {
        "id": record_id,
        "at": _text(START + number * STEP - late),
        "site": site,
        "visitor": f"v{number // 480}-{chance.randrange(3)}",
        "kind": chance.choice("abcdef"),
        "level": None if chance.random() < 0.03 else round(chance.gauss(0, 1.5), 3),
    }


def _labels(chance: random.Random, record_id: str, site: str, at: datetime) -> Iterator[_Drafted]:
    """Mostly after its observation, 1% before it; 3% are revised, and 2% tell of a time long before."""
    delay = chance.uniform(-20, -1) if chance.random() < 0.01 else chance.uniform(20, 300)
    known = at + timedelta(minutes=delay)
    for revision in range(2 if chance.random() < 0.03 else 1):
        known += timedelta(minutes=revision * chance.uniform(10, 200))
        late = timedelta(minutes=chance.uniform(1, 300) if chance.random() < 0.02 else 0)
        outcome = round(chance.random() + revision, 3)
        told = {"id": record_id, "event_time": _text(known - late), "site": site, "outcome": outcome}
        yield _draft("label", site, known, told)


def _withdrawal(chance: random.Random, seen: dict[str, Any], site: str, at: datetime) -> Iterator[_Drafted]:
    """Half of what is withdrawn comes again, corrected."""
    known = at + timedelta(minutes=chance.uniform(5, 500))
    yield _draft("retraction", site, known, {"id": seen["id"], "site": site})
    if chance.random() < 0.5:
        yield _draft("observation", site, known + timedelta(minutes=30), {**seen, "level": -2.5})


def _hostile(chance: random.Random, number: int, site: str, at: datetime) -> _Drafted:
    """What no contract lets in, by turns."""
    seen = _observation(chance, f"h{number}", site, number)
    bad = [
        b'{"broken": "h%d", \xff' % number,
        msgspec.json.encode({**seen, "level": 11}),
        msgspec.json.encode({**seen, "level": "high"}),
        msgspec.json.encode({**seen, "nobody": "knows"}),
        msgspec.json.encode({**seen, "at": "yesterday"}),
        b'{"id": "h%d", "level": NaN}' % number,
        b"[" * 5_000 + b"h%d" % number,
        msgspec.json.encode({"id": f"h{number}"}),
    ][number // 50 % 8]
    return _Drafted(at, site, Sent("io.everloop.observation", bad, _home(site), hostile=True))


def _draft(kind: str, site: str, known: datetime, data: dict[str, Any], *, hostile: bool = False) -> _Drafted:
    value = msgspec.json.encode({**data, "known_at": _text(known)})
    alone = kind == "retraction"
    return _Drafted(known, site, Sent(f"io.everloop.{kind}", value, _home(site), hostile, alone))


def _home(site: str) -> int:
    return partition_of(key_bytes([site]), PARTITIONS)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
