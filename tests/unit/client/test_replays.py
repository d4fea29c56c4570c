"""What `status` and `apply --dry-run` say of replays."""

import httpx
import pytest
from everloop import changes, replays
from everloop.changes import Change, plan_apply
from everloop.replays import Replay, ReplayCost, replays_under_way
from everloop_schemas.pipeline import load, to_definition

METRICS = """
# HELP everloop_feature_replay_position Log offset
# TYPE everloop_feature_replay_position gauge
everloop_feature_replay_position{partition="0",pipeline="a"} 50.0
everloop_feature_replay_position{partition="1",pipeline="a"} 30.0
everloop_feature_replay_position{partition="0",pipeline="done"} 7.0
# HELP everloop_feature_replay_target Log offset
# TYPE everloop_feature_replay_target gauge
everloop_feature_replay_target{partition="0",pipeline="a"} 100.0
everloop_feature_replay_target{partition="1",pipeline="a"} 100.0
everloop_feature_replay_target{partition="0",pipeline="done"} 7.0
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
    assert replays_under_way("http://x") == [Replay("a", 80, 200)]
    assert Replay("a", 80, 200).share == 0.4


def test_a_feature_service_that_does_not_answer_breaks_no_status() -> None:
    assert replays_under_way("http://127.0.0.1:1") == []


class Registry:
    """The two calls that a plan makes."""

    addresses = type("Addresses", (), {"kafka": "nowhere:1"})

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
            Change("p", "changed", 4, ReplayCost(50_000, 3 << 20, 2.0)),
            "at most 50000 rows, 3.0 MiB, about 2 s",
        ),
    ],
)
def test_a_plan_says_what_applying_would_do(monkeypatch, known, change, says) -> None:
    """Nobody should learn of an hour's replay from the lag of production."""

    async def cost(*_):
        return ReplayCost(50_000, 3 << 20, 2.0)

    monkeypatch.setattr(changes, "replay_cost", cost)
    assert plan_apply(Registry(*known), PIPELINE) == change
    assert says in str(change)
