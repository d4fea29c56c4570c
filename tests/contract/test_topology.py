"""Each service's real subscriptions and publications, held against what the topic files name."""

import pytest
from contract.wiring import Wiring, wiring
from everloop_schemas.topics import TOPICS, publishes, subscribes

SERVICES = ["ingest", "feature", "trainer", "registry", "serving", "monitor"]


@pytest.fixture(scope="module")
def wirings() -> dict[str, Wiring]:
    return {service: wiring(service) for service in SERVICES}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reads_what_the_topic_files_say(service: str, wirings: dict[str, Wiring]) -> None:
    """Whoever changes an event finds in the file whom to tell; a reader that is missing there breaks."""
    assert set(wirings[service].reads) == subscribes(service), wirings[service].reads


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_writes_what_the_topic_files_say(service: str, wirings: dict[str, Wiring]) -> None:
    """A topic whose file names a producer that does not write it stays empty, and nobody knows why."""
    assert set(wirings[service].writes) == publishes(service), wirings[service].writes


def test_no_topic_is_without_a_writer_or_a_reader(wirings: dict[str, Wiring]) -> None:
    """An event that nobody reads is cost; one that nobody writes is a promise broken."""
    written = {topic for found in wirings.values() for topic in found.writes}
    read = {topic for found in wirings.values() for topic in found.reads}
    assert written == {name for name, spec in TOPICS.items() if spec.producers != {"people"}}
    assert read == {name for name, spec in TOPICS.items() if spec.consumers != {"people"}}
