"""Names, patterns and settings of topics."""

import re

import pytest
from everloop_schemas.events import RecordAccepted
from everloop_schemas.topics import (
    GROUPS,
    TOPICS,
    dead_letter_topic,
    find,
    pipeline_topics,
    platform_topics,
    publishes,
    subscribes,
)

LOG = "ingest-record-accepted-v1"


def test_a_data_topic_has_one_topic_per_pipeline() -> None:
    assert TOPICS[LOG].topic_for("flight-delay") == f"{LOG}.flight-delay"
    assert TOPICS["ingest-data-arrived-v1"].topic_for("flight-delay") == "ingest-data-arrived-v1"
    with pytest.raises(ValueError, match="one topic per pipeline"):
        TOPICS[LOG].topic_for(None)


@pytest.mark.parametrize(
    ("topic", "matches"),
    [
        (f"{LOG}.flight-delay", True),
        (f"{LOG}.a", True),
        (LOG, False),
        (f"{LOG}.", False),
        (f"{LOG}.Flight", False),
        (f"x{LOG}.a", False),
        ("ingest-record-accepted-v10.a", False),
        (f"{LOG}.a.b", False),
    ],
)
def test_a_pattern_matches_its_own_topics_only(topic: str, *, matches: bool) -> None:
    """A pattern that matched too much would feed one topic's records to another's reader."""
    assert (re.match(TOPICS[LOG].pattern, topic) is not None) is matches
    assert (find(topic) is not None) is matches


def test_every_name_is_found_again() -> None:
    for name, spec in TOPICS.items():
        topic = spec.topic_for("p")
        assert find(topic) == (spec, "p" if spec.kind == "data" else None)
        assert spec.name == name
        assert re.match(spec.pattern, topic)
    assert find("__consumer_offsets") is None


def test_a_topic_knows_its_event() -> None:
    assert TOPICS[LOG].model is RecordAccepted
    assert TOPICS["feature-state-changed-v1"].model is None


def test_all_topics_are_created_once() -> None:
    """A topic that nobody creates is an event that nobody can send."""
    created = {**platform_topics(), **pipeline_topics("p", 7)}
    assert set(created) == {spec.topic_for("p") for spec in TOPICS.values()}
    assert {partitions for partitions, _ in pipeline_topics("p", 7).values()} == {7}
    assert all(dead_letter_topic(group) in created for group in GROUPS)


def test_truth_is_kept_for_ever() -> None:
    """Kafka's default of seven days would delete the log, and with it every dataset's lineage."""
    for name, spec in TOPICS.items():
        if name == "ingest-quality-noted-v1":
            continue  # sums on their way: what follows from them is on ingest-quality-measured-v1
        compacted = spec.config["cleanup.policy"] == "compact"
        if name == LOG or spec.kind in ("decision", "artifact", "dead-letter"):
            assert compacted or spec.config["retention.ms"] == "-1", name
        mebibytes = 3 if spec.kind == "dead-letter" else 2  # the largest record, and why it was refused
        assert int(spec.config["max.message.bytes"]) == mebibytes * 1024 * 1024


def test_services_are_listed_both_ways() -> None:
    assert LOG in publishes("ingest")
    assert LOG in subscribes("feature")
