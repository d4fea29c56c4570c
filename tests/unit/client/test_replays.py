"""What `status` and `apply --dry-run` say of replays."""

import math

import httpx
import pytest
from everloop import changes, replays
from everloop.changes import Change, plan_apply
from everloop.cli import status
from everloop.replays import Replay, ReplayCost, replays_under_way
from everloop_schemas.pipeline import load, to_definition

METRICS = """
# HELP everloop_feature_replay_share Part
# TYPE everloop_feature_replay_share gauge
everloop_feature_replay_share 0.25
"""
for number, name in enumerate(("position", "target", "rows_per_second", "seconds_left")):
    METRICS += f"""
# HELP everloop_feature_replay_{name} What it is
# TYPE everloop_feature_replay_{name} gauge
everloop_feature_replay_{name}{{partition="0",pipeline="a"}} {(50, 100, 10, 5)[number]}
everloop_feature_replay_{name}{{partition="1",pipeline="a"}} {(30, 100, 2, 35)[number]}
everloop_feature_replay_{name}{{partition="0",pipeline="done"}} {(7, 7, 0, 0)[number]}
everloop_feature_replay_{name}{{partition="0",pipeline="slow"}} {(7, 9, 1, "+Inf")[number]}
"""
PIPELINE = load("""
pipeline: p
partition_by: [shop]
observation: {event_time: at, fields: {shop: {type: category}}}
label: {type: binary, fields: {gain: {type: number}}, value: {won: gain > 0}}
""")


def test_partitions_are_counted_together_and_finished_ones_left_out(monkeypatch) -> None:
    """A list of pipelines at 100% hides the one that is at 40%."""
    answer = httpx.Response(200, text=METRICS, request=httpx.Request("GET", "http://x"))
    monkeypatch.setattr(replays.httpx, "get", lambda *_, **__: answer)
    found = Replay("a", 80, 200, rows_per_second=12, seconds_left=35)
    assert replays_under_way("http://x") == [found, Replay("slow", 7, 9, 1, math.inf)]
    assert (found.share, found.rows_left) == (0.4, 120)


def test_a_status_shows_a_replay_without_an_end(monkeypatch, capsys) -> None:
    """Whoever waits must see that waiting does not help; and JSON has no infinity."""
    endless = status._replay(Replay("slow", 7, 9, 1, math.inf))
    assert (endless["seconds_left"], endless["rows_left"], endless["share"]) == (None, 2, 0.7778)
    soon = status._replay(Replay("a", 80, 200, 12, 3735.2))
    status._print_replays([endless, soon])
    shown = capsys.readouterr().out
    assert "no end in sight" in shown
    assert "1:02:15" in shown


@pytest.mark.parametrize(("text", "share"), [(METRICS, 0.25), ("", 0.5)])
async def test_the_time_of_a_replay_follows_from_what_the_service_gives_it(monkeypatch, text, share) -> None:
    """A dry run that forgets the throttle promises minutes for hours."""

    class Empty:
        def __init__(self, *_) -> None: ...

        async def bounds(self):
            return {0: (100, 50_100)}

    async def mean_bytes(*_):
        return 10.0

    answer = httpx.Response(200, text=text, request=httpx.Request("GET", "http://x"))
    monkeypatch.setattr(replays.httpx, "get", lambda *_, **__: answer)
    monkeypatch.setattr(replays, "Log", Empty)
    monkeypatch.setattr(replays, "_mean_bytes", mean_bytes)
    cost = await replays.replay_cost(None, "p", "http://x")
    assert cost == ReplayCost(50_000, 500_000, 2 / share, share)


def test_a_feature_service_that_does_not_answer_breaks_no_status() -> None:
    assert replays_under_way("http://127.0.0.1:1") == []


class Registry:
    """The two calls that a plan makes."""

    addresses = type("Addresses", (), {"kafka": "nowhere:1", "feature": "http://nowhere"})

    def __init__(self, *known) -> None:
        self.known = {one.pipeline: one for one in known}

    def pipelines(self):
        return [{"pipeline": name} for name in self.known]

    def pipeline(self, name):
        return {"version": 3, "definition": to_definition(self.known[name])}


@pytest.mark.parametrize(
    ("known", "change", "says"),
    [
        ((), Change("p", "created", 1, None), "would be created"),
        ((PIPELINE,), Change("p", "unchanged", 3, None), "unchanged: version 3"),
        (
            (PIPELINE.model_copy(update={"team": "else"}),),
            Change("p", "changed", 4, ReplayCost(50_000, 3 << 20, 2.0, 0.5)),
            "at most 50000 rows, 3.0 MiB, about 2 s with 50% of feature's time",
        ),
    ],
)
def test_a_plan_says_what_applying_would_do(monkeypatch, known, change, says) -> None:
    """Nobody should learn of an hour's replay from the lag of production."""

    async def cost(*_):
        return ReplayCost(50_000, 3 << 20, 2.0, 0.5)

    monkeypatch.setattr(changes, "replay_cost", cost)
    assert plan_apply(Registry(*known), PIPELINE) == change
    assert says in str(change)
