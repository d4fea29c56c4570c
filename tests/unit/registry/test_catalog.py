"""The catalog: what a pipeline's data is, who reads it, how its versions differ."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
import pytest
from everloop_kernel.auth import Tokens
from everloop_kernel.health import Health
from everloop_kernel.service import application
from everloop_registry.application.review_model import review_model
from everloop_registry.domain.catalog import catalog_features, catalog_fields, changes, topics_of
from everloop_registry.entrypoints.http import Api, routes
from everloop_schemas.events import DataProfiled, FieldProfile, MeasuredShare
from everloop_schemas.shares import SharePattern

DEFINITION = {
    "pipeline": "p",
    "team": "operations",
    "partition_by": ["origin"],
    "observation": {
        "event_time": "departs",
        "fields": {
            "origin": {"type": "category", "values": ["EWR"]},
            "wind": {
                "type": "number",
                "unit": "mph",
                "nullable": True,
                "min": 0,
                "owner": "met",
                "pii": True,
            },
            "note": {"type": "string"},
        },
    },
    "label": {
        "type": "binary",
        "fields": {"delay": {"type": "number"}},
        "value": {"late": "delay > 15 and wind > 0"},
    },
    "features": {
        "hour": "hour(event_time)",
        "gust": "wind ** 2",
        "late_7d": "mean(late, window='7d', by=[origin], over=labels)",
    },
    "gates": [],
}


def test_a_feature_names_the_fields_behind_it() -> None:
    """Whoever changes a field must find every feature that it changes, through the label too."""
    uses = {use.name: use.fields for use in catalog_features(DEFINITION)}
    assert uses == {"hour": ("departs",), "gust": ("wind",), "late_7d": ("origin", "wind", "delay")}


def test_a_field_keeps_whatever_the_file_says_of_it() -> None:
    """A key that the file format gains later (an owner, PII) must not be lost on the way."""
    fields = {one["name"]: one for one in catalog_fields(DEFINITION)}
    assert fields["wind"]["owner"] == "met"
    assert fields["wind"]["pii"] is True
    assert fields["wind"]["used_by"] == ["gust", "late_7d"]
    assert fields["note"]["used_by"] == []
    assert fields["origin"]["is_key"]
    assert fields["delay"]["of"] == "label"


def test_a_label_that_is_its_field_ends() -> None:
    """`failed: failed` must not be followed round and round."""
    definition = {**DEFINITION, "label": {"fields": {"delay": {}}, "value": {"delay": "delay"}}}
    definition["features"] = {"m": "mean(delay, window='1h', by=[origin], over=labels)"}
    assert catalog_features(definition)[0].fields == ("origin", "delay")


def test_changes_are_named_by_their_path() -> None:
    """A reviewer must see the two keys that changed, not two files."""
    after = {**DEFINITION, "features": {"gust": "wind ** 3", "n": "1"}, "team": "ops"}
    found = {one.path: (one.before, one.after) for one in changes(DEFINITION, after)}
    assert found == {
        "team": ("operations", "ops"),
        "features.hour": ("hour(event_time)", None),
        "features.gust": ("wind ** 2", "wind ** 3"),
        "features.late_7d": ("mean(late, window='7d', by=[origin], over=labels)", None),
        "features.n": (None, "1"),
    }
    assert changes(DEFINITION, DEFINITION) == []


def test_topics_name_their_readers() -> None:
    """Who has to be told before a field goes."""
    found = {one["topic"]: one for one in topics_of("p")}
    assert "trainer" in found["ingest-record-accepted-v1.p"]["consumers"]
    assert found["registry-model-approved-v1"]["producers"] == ["registry"]
    assert not any("dlq" in name for name in found)


@pytest.fixture
def local(work, office) -> httpx.AsyncClient:
    @asynccontextmanager
    async def begin():
        yield work

    api = Api(begin, office, None, {})
    app = application(routes(api), Tokens(None), Health([]))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_the_page_has_fields_models_topics_and_versions(local, work, define, trained, office) -> None:
    """One page answers: what is it, who uses it, what changed."""
    define(1)
    define(2, gates=[{"metric": "log_loss", "better_than": "prior"}])
    await review_model(trained(1), work, office)
    found = (await local.get("/v1/pipelines/p/catalog")).json()
    assert found["version"] == 2
    assert [one["model_version"] for one in found["models"]] == [1]
    assert [(one["version"], [c["path"] for c in one["changes"]]) for one in found["versions"]] == [
        (2, ["gates"]),
        (1, []),
    ]
    assert found["topics"]


def profile(run: int, **fields: FieldProfile) -> DataProfiled:
    at = datetime(2026, 1, run, tzinfo=UTC)
    times = {"first_event_time": at, "last_event_time": at, "profiled_at": at}
    counts = {"window_seconds": 3600, "windows": 24, "days": 1, "observations": 100 * run, "labels": 90}
    return DataProfiled(
        run_id=f"run-{run}",
        pipeline="p",
        pipeline_version=1,
        dataset_sha256="d" * 64,
        late_seconds=1.0,
        late=share(0.01),
        fields=fields,
        **counts,
        **times,
    )


def share(value: float) -> MeasuredShare:
    pattern = SharePattern(share=value, error=0.01, correlation=0.1, worst=1.0, windows=24)
    return MeasuredShare(window=pattern, day=pattern)


async def test_the_page_has_the_data_of_the_last_trainings(local, work, define, trained, office) -> None:
    """Whether a field has drifted is read off one page, without the training data."""
    define(1)
    await review_model(trained(2), work, office)
    for run, null in ((1, 0.1), (2, 0.2)):
        wind = FieldProfile(
            kind="observation", measures={"null": share(null)}, low=1.0, mean=4.0 + run, median=5.0, high=9.0
        )
        origin = FieldProfile(
            kind="observation", measures={"is:JFK": share(0.3), "is:EWR": share(0.6)}, known=["EWR", "JFK"]
        )
        for _ in range(2):
            await work.add_profile(profile(run, wind=wind, origin=origin))
    found = (await local.get("/v1/pipelines/p/catalog")).json()["profiles"]
    assert [(one["run_id"], one["model_version"], one["observations"]) for one in found] == [
        ("run-2", 2, 200),
        ("run-1", None, 100),
    ]
    assert found[0]["fields"]["wind"] == {
        "of": "observation",
        "null": 0.2,
        "mean": 6.0,
        "low": 1.0,
        "median": 5.0,
        "high": 9.0,
    }
    assert found[0]["fields"]["origin"]["shares"] == {"EWR": 0.6, "JFK": 0.3}
    assert found[0]["fields"]["origin"]["values"] == 2


async def test_two_versions_are_compared(local, define) -> None:
    """Version 1 against 2, in either direction; a version that is not there is named."""
    define(1)
    define(2, mode="manual")
    found = (await local.get("/v1/pipelines/p/versions/1/changes/2")).json()
    assert found["changes"] == [{"path": "rollout.mode", "before": "direct", "after": "manual"}]
    missing = await local.get("/v1/pipelines/p/versions/1/changes/9")
    assert missing.status_code == 404
    assert "has no version 9" in missing.json()["detail"]


async def test_an_unknown_pipeline_is_named(local) -> None:
    assert (await local.get("/v1/pipelines/nope/catalog")).status_code == 404
