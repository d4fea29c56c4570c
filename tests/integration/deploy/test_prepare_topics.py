"""The step that creates the platform's topics before the services start."""

import asyncio

import pytest
from everloop.embedded import Kafka
from everloop_kernel import prepare
from everloop_kernel.admin import topic_drift
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.topics import platform_topics

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A broker of this module alone: the platform's topics have fixed names."""
    with Kafka(tmp_path_factory.mktemp("prepare-kafka"), port=0) as running:
        yield running


async def test_topics_are_as_their_files_say(broker, monkeypatch, capsys) -> None:
    """A topic with the wrong retention loses decisions; running the step again must change nothing."""
    monkeypatch.setenv("EVERLOOP_KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    assert await asyncio.to_thread(prepare.main, ["topics"]) == 0
    assert set(capsys.readouterr().out.split()) == set(platform_topics())
    assert await topic_drift(KafkaSettings(), platform_topics()) == []
    assert await asyncio.to_thread(prepare.main, ["topics"]) == 0
    assert capsys.readouterr().out == "Every topic is there already.\n"
